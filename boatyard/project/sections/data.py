"""Where the rows are, and what they mean."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from boatyard import plugins
from boatyard.project.fields import Bound, PluginName, Section


class DataConfig(Section):
    """Where the rows are and what they mean."""

    source: Annotated[str, PluginName("sources")] = Field(description="the kind of files, or an installed plug-in's")
    path: str = Field(description="file or folder; relative to the project file, or a URI (file, pvc, s3, gs)")
    target: str = Field(
        "label",
        description="tables: the target's column; npz: its array; npy: its file (without .npy) in the folder",
    )
    features: tuple[str, ...] | None = Field(
        None, description="tables: the columns to learn from (all others by default); npz, npy: the array of rows"
    )
    columns: dict[str, Annotated[str, PluginName("kinds")]] = Field(
        {},
        description="tables: what a column is where its values do not say it (a numeric code that is a category)",
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
        source: Any = plugins.load("sources", self.source)
        for key in ("columns", "ranges", "slices"):
            if getattr(self, key) and not source.tabular:
                raise ValueError(f"{key} needs a table, source is {self.source}; remove it")
        for column, kind in self.columns.items():
            if not plugins.load("kinds", kind).tabular:
                raise ValueError(f"columns.{column} is {kind}, which is no column of a table; give another kind")
        if self.group and not source.grouped:
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
