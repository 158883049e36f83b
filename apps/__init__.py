"""The Gradio demos, one per task."""
