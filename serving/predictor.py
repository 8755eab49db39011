"""The KServe model: a verified package and the queue before its threads, off the event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kserve

from boatyard import prediction
from boatyard.data.schema import Array
from boatyard.prediction import Answers

from . import v2
from .batching import Batcher
from .direct import Direct
from .limits import Limits, Plan
from .metrics import Numbers
from .resting import Rest


class Predictor(kserve.Model):  # type: ignore[misc]
    """Graph inputs in, answers out; made of a package that verified and predicts as packaged: ready at once."""

    def __init__(
        self,
        package: prediction.Predictor,
        plan: Plan,
        limits: Limits,
        name: str | None = None,
        rest: Rest | None = None,
    ) -> None:
        super().__init__(name or package.name)
        self.plan = plan
        self.package, self.schema, self.version = package, package.schema, package.digest
        self.direct = Direct(package.schema)
        run, limits = package.engine.run, limits.of_batch(plan.batch)
        self.batcher = Batcher(run, limits, self._observe, plan.at_once, self.direct, rest)
        self.numbers = Numbers(self.name, self.version, package.engine.name, self.batcher.load)
        self.load()

    def start(self) -> None:
        """Do nothing: KServe's own says ready whether it is or not."""

    def validate(self, payload: Any) -> Any:
        """Return what was decoded already; KServe's own looks for V1 and V2 bodies."""
        return payload

    async def predict(self, payload: Mapping[str, Array], headers: dict[str, str] | None = None) -> Answers:
        """Answer graph inputs; raises RequestError, Busy or Late."""
        return await self.batcher.submit(payload)

    def close(self) -> None:
        """Answer what waits, and take no more."""
        self.stop()
        self.batcher.close()

    def get_input_types(self) -> list[dict[str, Any]]:
        return v2.inputs(self.schema)

    def get_output_types(self) -> list[dict[str, Any]]:
        return v2.outputs(self.schema)

    def _observe(self, name: str, value: float) -> None:
        getattr(self.numbers, name).observe(value)
