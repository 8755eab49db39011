"""Pipelines: what follows what, with which resources, retries and caching; no logic."""
