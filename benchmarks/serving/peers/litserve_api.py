"""A LitServe API with its batching, over its queue for high rates (`fast_queue`)."""

import os

import litserve
import numpy as np
from graph import Graph, predictions


class Fashion(litserve.LitAPI):
    def setup(self, device):
        self.graph = Graph()

    def decode_request(self, request):
        return np.array(request["instances"], self.graph.dtype)

    def predict(self, images):
        return self.graph(images)

    def encode_response(self, output):
        return {"predictions": predictions(*output)}


class Batched(Fashion):
    """Requests of one row or more side by side; what came together goes back apart."""

    def batch(self, inputs):
        self.sizes = [len(images) for images in inputs]
        return np.concatenate(inputs)

    def unbatch(self, output):
        ends = np.cumsum(self.sizes)[:-1]
        return list(zip(*(np.split(each, ends) for each in output), strict=True))


if __name__ == "__main__":
    batch = int(os.environ["PEER_BATCH"])
    api = Batched(max_batch_size=batch, batch_timeout=0.001) if batch > 1 else Fashion()
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=int(os.environ["PEER_WORKERS"]),
        fast_queue=os.environ["PEER_QUEUE"] == "fast",
        timeout=60,
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        num_api_servers=int(os.environ["PEER_SERVERS"]),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
