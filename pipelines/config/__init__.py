"""What a user asks for: the recipe, its errors, the catalogue."""
