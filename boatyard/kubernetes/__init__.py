"""The cluster's API: the one place that talks to it."""
