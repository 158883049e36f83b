"""The model card templates, one per task over one base."""
