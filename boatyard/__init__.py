"""Boatyard: from data to a measured KServe endpoint, the same on a laptop and on a cluster."""

__version__ = "0.1.0"
