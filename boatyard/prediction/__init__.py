"""The engine that answers: raw rows in, labelled answers out; the same in evaluation and behind KServe.

`engines` run a graph, `answers` are what comes of it; `decoding` turns requests into its inputs, `predictor` loads a
verified package.
"""

from boatyard.prediction.answers import Answers
from boatyard.prediction.decoding import check, decode, encode
from boatyard.prediction.engines import Engine
from boatyard.prediction.engines.onnxruntime import OnnxRuntime
from boatyard.prediction.predictor import Predictor, load

__all__ = ["Answers", "Engine", "OnnxRuntime", "Predictor", "check", "decode", "encode", "load"]
