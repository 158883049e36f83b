"""Features of a frozen trunk, computed once and replayed."""
