"""Where the rows are, and what they mean."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from boatyard.project.fields import Bound, Section


class DataConfig(Section):
    """Where the rows are and what they mean."""

    source: Literal["idx", "npy", "npz", "csv", "parquet", "images"] = Field(description="the kind of files")
    path: str = Field(description="file or folder; relative to the project file, or a URI (file, pvc, s3, gs)")
    target: str = Field(
        "label",
        description="csv, parquet: the target's column; npz: its array; npy: its file (without .npy) in the folder",
    )
    features: tuple[str, ...] | None = Field(
        None, description="csv, parquet: the columns to learn from (all others by default); npz, npy: the array of rows"
    )
    columns: dict[str, Literal["number", "category"]] = Field(
        {},
        description="csv, parquet: what a column is where its values do not say it (a numeric code that is a category)",
    )
    labels: tuple[str, ...] | None = Field(
        None, description="names of the classes 0, 1, 2 … where the data holds numbers"
    )
    group: str | None = Field(
        None, description="column whose equal values never fall into two splits (a patient, a site)"
    )
    slices: tuple[str, ...] = Field(
        (), description="columns to report metrics by; they are not learnt from unless listed in features"
    )
    ranges: dict[str, tuple[Bound, Bound]] = Field({}, description="allowed [least, greatest] by column")
    sha256: dict[str, str] = Field({}, description="expected digests by file name; another digest is refused")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        tabular = self.source in ("csv", "parquet")
        for key in ("columns", "ranges", "slices"):
            if getattr(self, key) and not tabular:
                raise ValueError(f"{key} needs a table, source is {self.source}; remove it")
        if self.group and not (tabular or self.source in ("npz", "npy")):
            raise ValueError(f"group needs a column or an array, source is {self.source}; remove it")
        if self.features and self.target in self.features:
            raise ValueError(f"features lists the target {self.target!r}; a model must not see its target")
        for column, (low, high) in self.ranges.items():
            if low is not None and high is not None and low > high:
                raise ValueError(f"ranges.{column} is [{low}, {high}]; the least comes first")
        for name, digest in self.sha256.items():
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError(f"sha256.{name}: expected 64 lower-case hex digits, found {digest!r}")
        return self
