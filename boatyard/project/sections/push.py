"""Where a package goes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from boatyard.project.fields import Name, Section, finite_number, null_of_false


class PushConfig(Section):
    """Where a package goes."""

    registry: str = Field(
        "registry", description="folder of the registry, relative to the project file, or its URI (file, pvc, s3, gs)"
    )
    alias: Annotated[Name | None, BeforeValidator(null_of_false)] = Field(
        "production", description="alias to move to the new version; null moves none"
    )
    golden: Annotated[int, BeforeValidator(finite_number), Field(ge=1, le=1000)] = Field(
        16,
        description="test rows packaged with the predictions that every server must reproduce (reference outputs)",
    )

    @model_validator(mode="after")
    def _free(self) -> Self:
        if self.alias == "latest":
            raise ValueError("alias latest always is the version with the greatest number; choose another")
        return self
