"""A BentoML service: with its adaptive batching (`batchable`) over arrays as its documentation has it, or without.

Without batches an async method is faster: a plain one is handed to a thread for each request.
"""

import os

import bentoml
import numpy as np
from graph import Graph, predictions

BATCH = int(os.environ["PEER_BATCH"])
OPTIONS = {"traffic": {"timeout": 60}, "metrics": {"enabled": False}, "logging": {"access": {"enabled": False}}}


class Loaded:
    def __init__(self) -> None:
        self.graph = Graph()


if BATCH:

    @bentoml.service(workers=int(os.environ["PEER_WORKERS"]), **OPTIONS)
    class Fashion(Loaded):
        @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=1000)
        def predict(self, instances: np.ndarray) -> list[dict]:
            return predictions(*self.graph(instances.astype(self.graph.dtype)))

else:

    @bentoml.service(workers=int(os.environ["PEER_WORKERS"]), **OPTIONS)
    class Fashion(Loaded):
        @bentoml.api
        async def predict(self, instances: list) -> list[dict]:
            return predictions(*self.graph(np.array(instances, self.graph.dtype)))
