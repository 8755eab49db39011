"""The graph as every peer runs it: ONNX Runtime, the threads that ours has. No import of this project's library."""

import os

import numpy as np
import onnxruntime


class Graph:
    """`model.onnx` of the package: [N, H, W] or [N, H, W, C] in, labels and probabilities out."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["PEER_THREADS"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(os.environ["PEER_GRAPH"], options, ["CPUExecutionProvider"])
        entry = self.session.get_inputs()[0]
        self.name = entry.name
        self.dtype = np.dtype({"tensor(uint8)": "uint8", "tensor(float)": "float32"}[entry.type])
        self(np.zeros((1, *entry.shape[1:]), self.dtype))  # the first run plans memory; no client shall wait for it

    def __reduce__(self):
        return Graph, ()  # a worker process loads its own

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return labels [N] and probabilities float32 [N, K]."""
        labels, probabilities = self.session.run(["label", "probabilities"], {self.name: images})
        return labels, probabilities


def predictions(labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, object]]:
    """Return V1 predictions."""
    rows = zip(labels.tolist(), probabilities.tolist(), strict=True)
    return [{"label": label, "probabilities": row} for label, row in rows]
