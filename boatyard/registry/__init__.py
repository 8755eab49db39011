"""A registry: immutable versions of packages and aliases, with a journal that cannot be edited unseen."""

from boatyard.registry.opening import open
from boatyard.registry.base import JOURNAL, LATEST, NAME_PATTERN, Registry, Version

__all__ = ["JOURNAL", "LATEST", "NAME_PATTERN", "Registry", "Version", "open"]
