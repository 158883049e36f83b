"""The demo of {{model}}. `python app.py` serves it; a Space runs it at its start."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from pipelines.apps.launch import launch

# a Space must be reached from outside its container, a copy on another computer need not
on_the_hub = "SPACE_ID" in os.environ
host = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0" if on_the_hub else "127.0.0.1")
launch("{{model}}", host=host, port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
