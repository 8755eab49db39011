"""The image that every component runs in, decided when a pipeline is compiled."""

from boatyard.settings import Settings

IMAGE = Settings().image
