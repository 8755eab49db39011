"""What a user brings: a model, and where the defaults do not fit, its features, loss and metrics."""

from boatyard.recipes.loading import is_own, load, make, names, texts
from boatyard.recipes.recipe import Recipe, dials

__all__ = ["Recipe", "dials", "is_own", "load", "make", "names", "texts"]
