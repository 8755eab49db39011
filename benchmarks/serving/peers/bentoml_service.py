"""A BentoML service with its adaptive batching (`batchable`), as its documentation has it for arrays."""

import os

import bentoml
import numpy as np
from graph import Graph, predictions

BATCH = int(os.environ["PEER_BATCH"])


@bentoml.service(workers=int(os.environ["PEER_WORKERS"]), traffic={"timeout": 60}, metrics={"enabled": False})
class Fashion:
    def __init__(self) -> None:
        self.graph = Graph()

    @bentoml.api(batchable=BATCH > 1, max_batch_size=max(BATCH, 2), max_latency_ms=1000)
    def predict(self, instances: np.ndarray) -> list[dict]:
        return predictions(*self.graph(instances.astype(self.graph.dtype)))
