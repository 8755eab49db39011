"""What runs a graph: ONNX Runtime, OpenVINO as an extra, and those that other distributions bring."""

from boatyard.prediction.engines.base import Engine

__all__ = ["Engine"]
