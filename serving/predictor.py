"""The KServe model: a verified package and the one thread that runs it, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kserve

from boatyard import prediction
from boatyard.prediction import Answers
from boatyard.schema import Array

from . import v2


class Predictor(kserve.Model):  # type: ignore[misc]
    """Graph inputs in, answers out; made of a package that verified and whose golden examples agree: ready at once."""

    def __init__(self, package: prediction.Predictor, name: str | None = None) -> None:
        super().__init__(name or package.name)
        self.package, self.schema, self.version = package, package.schema, package.digest
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self.load()

    def start(self) -> None:
        """Do nothing: KServe's own says ready whether it is or not."""

    def validate(self, payload: Any) -> Any:
        """Return what was decoded already; KServe's own looks for V1 and V2 bodies."""
        return payload

    async def predict(self, payload: Mapping[str, Array], headers: dict[str, str] | None = None) -> Answers:
        """Answer graph inputs in the inference thread; raises RequestError."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.package.run, payload)

    async def answer(self, inputs: Mapping[str, Array]) -> Answers:
        """Answer graph inputs by way of KServe's call, which keeps its latency metrics."""
        answers, _ = await self(inputs)
        found: Answers = answers
        return found

    def get_input_types(self) -> list[dict[str, Any]]:
        return v2.inputs(self.schema)

    def get_output_types(self) -> list[dict[str, Any]]:
        return v2.outputs(self.schema)
