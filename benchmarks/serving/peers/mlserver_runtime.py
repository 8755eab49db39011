"""A custom runtime of MLServer: a tensor by its codec in, two outputs out; batching is MLServer's own, by settings."""

from graph import Graph
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Fashion(MLModel):
    async def load(self) -> bool:
        self.graph = Graph()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        labels, probabilities = self.graph(images.astype(self.graph.dtype, copy=False))
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[
                StringCodec.encode_output("label", labels.tolist()),
                NumpyCodec.encode_output("probabilities", probabilities),
            ],
        )
