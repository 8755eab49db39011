"""A registry: immutable versions of packages and aliases, with a journal that cannot be edited unseen."""

from boatyard.registry.base import JOURNAL, LATEST, NAME_PATTERN, Damage, Registry, Version
from boatyard.registry.opening import open

__all__ = ["JOURNAL", "LATEST", "NAME_PATTERN", "Damage", "Registry", "Version", "open"]
