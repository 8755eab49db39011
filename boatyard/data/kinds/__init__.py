"""What a field of a row can be: an image, a number, a category, or what a plug-in brings; a module for each."""

from boatyard.data.kinds.base import ColumnCleaner, Kind, Limits, SliceColumn, load, of

__all__ = ["ColumnCleaner", "Kind", "Limits", "SliceColumn", "load", "of"]
