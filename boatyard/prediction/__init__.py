"""The engine that answers: raw rows in, labelled answers out; the same in evaluation and behind KServe.

`engine` runs a graph, and `openvino` can; `decoding` turns requests into its inputs, `predictor` loads a verified
package.
"""

from boatyard.prediction.decoding import check, decode, encode
from boatyard.prediction.engine import Answers, Engine
from boatyard.prediction.predictor import ENGINES, Predictor, load

__all__ = ["ENGINES", "Answers", "Engine", "Predictor", "check", "decode", "encode", "load"]
