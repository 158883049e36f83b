"""The Gradio demos, one file per task."""
