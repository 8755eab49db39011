"""What a user brings: a model, and where the defaults do not fit, its features, loss and metrics."""

from boatyard.recipes.loading import load, make, names, texts
from boatyard.recipes.recipe import Recipe, dials

__all__ = ["Recipe", "dials", "load", "make", "names", "texts"]
