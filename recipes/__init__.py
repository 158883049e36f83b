"""The recipes that Graft ships: YAML, data only."""
