"""What is measured, and what a model must show before it is pushed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from boatyard.data.artifacts import digest_json
from boatyard.project.fields import Count, Name, Number, Section, Seed, finite_number, null_of_false


class EvaluateConfig(Section):
    """What is measured on the test split."""

    confidence: Annotated[float, BeforeValidator(finite_number), Field(gt=0.5, lt=1)] = Field(
        0.95, description="of every interval"
    )
    bootstrap: Annotated[int, BeforeValidator(finite_number), Field(ge=100, le=1_000_000)] = Field(
        1000, description="resamples, for measures of plug-ins that have no closed interval"
    )
    bins: Annotated[int, BeforeValidator(finite_number), Field(ge=2, le=100)] = Field(
        15, description="of the calibration curve"
    )
    worst: Annotated[int, BeforeValidator(finite_number), Field(ge=0, le=200)] = Field(
        24, description="examples shown that the model got most wrong"
    )
    seed: Seed = Field(0, description="of what is drawn: bets, permutations, resamples")


class NotWorseConfig(Section):
    """Non-inferiority to the version that an alias names, paired on the same rows (Tango's score interval)."""

    alias: Name = Field(
        "production", description="which version to compare with; none there yet means nothing to compare"
    )
    margin: Annotated[float, BeforeValidator(finite_number), Field(gt=0, lt=0.5)] = Field(
        0.01, description="greatest loss of accuracy that still counts as not worse"
    )
    confidence: Annotated[float, BeforeValidator(finite_number), Field(gt=0.5, lt=1)] = Field(
        0.95, description="one-sided"
    )


class GateConfig(Section):
    """What a model must show before it is pushed; frozen in the checkpoint before training starts."""

    minimum: dict[str, Number] = Field({}, description="least value by metric, such as accuracy: 0.9")
    maximum: dict[str, Number] = Field({}, description="greatest value by metric, such as log_loss: 0.5")
    bound: Literal["estimate", "interval"] = Field(
        "interval",
        description="what must satisfy minimum and maximum: the estimate, or the unfavourable end of its interval",
    )
    rows: Count = Field(100, description="least number of test rows; with fewer the model is refused")
    not_worse: Annotated[NotWorseConfig | None, BeforeValidator(null_of_false)] = Field(
        NotWorseConfig(), description="compare with the version in production; null: do not"
    )

    @property
    def seal(self) -> str:
        """The digest of the rules, which train writes down before it starts and gate looks for."""
        return digest_json(self.model_dump(mode="json"))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for metric in self.minimum.keys() & self.maximum.keys():
            if self.minimum[metric] > self.maximum[metric]:
                raise ValueError(
                    f"nothing can pass: {metric} expected ≥ {self.minimum[metric]} and ≤ {self.maximum[metric]}"
                )
        return self
