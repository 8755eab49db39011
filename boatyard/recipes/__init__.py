"""What a user brings: a model, and where the defaults do not fit, its features, loss and metrics."""

from boatyard.recipes.recipe import GROUP, Recipe, dials, load, make, names, sources

__all__ = ["GROUP", "Recipe", "dials", "load", "make", "names", "sources"]
