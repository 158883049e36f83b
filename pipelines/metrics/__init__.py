"""Pure metric functions over prediction records."""
