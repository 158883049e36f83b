"""The demo of {{model}}: `python app.py` serves it, and a Space runs it by itself."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from pipelines.apps.launch import launch

on_the_hub = "SPACE_ID" in os.environ  # a Space is reached from outside its container, a copy on a desk is not
host = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0" if on_the_hub else "127.0.0.1")
launch("{{model}}", host=host, port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
