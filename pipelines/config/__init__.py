"""The recipe, its errors, and the catalogue of the recipes that Graft ships."""
