"""How raw rows become a clean, split dataset."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from boatyard.project.fields import Count, Fraction, Section, Seed, finite_number


class SplitConfig(Section):
    """Shares of the rows; a source with its own test set (idx) keeps it whole, and these share out the rest."""

    train: Fraction = Field(0.8, description="share of the rows to learn from")
    validation: Fraction = Field(0.1, description="share to stop and choose by")
    test: Fraction = Field(0.1, description="share that only evaluate sees")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError(
                f"train, validation and test add up to {self.train + self.validation + self.test:g}, expected 1"
            )
        if 0 in (self.train, self.validation, self.test):
            raise ValueError("every split needs rows; give each of train, validation and test more than 0")
        return self


class AugmentConfig(Section):
    """Random changes of training images, drawn anew each epoch; never at evaluation or in the ONNX model."""

    flip: bool = Field(False, description="mirror left to right with probability 0.5")
    shift: Annotated[int, BeforeValidator(finite_number), Field(ge=0, le=64)] = Field(
        0, description="move by up to this many pixels"
    )
    noise: Annotated[float, BeforeValidator(finite_number), Field(ge=0, le=1)] = Field(
        0.0, description="standard deviation of Gaussian noise, in units of the normalised image"
    )
    erase: Annotated[int, BeforeValidator(finite_number), Field(ge=0, le=64)] = Field(
        0, description="side in pixels of a square that is blanked"
    )


class PreprocessConfig(Section):
    """How raw rows become a clean, split dataset."""

    split: SplitConfig = Field(SplitConfig(), description="shares of train, validation and test")
    seed: Seed = Field(0, description="of the split")
    duplicates: Literal["auto", "drop", "keep", "refuse"] = Field(
        "auto", description="rows equal to an earlier one: dropped, unless a fifth or more are; or drop, keep, refuse"
    )
    missing: Literal["impute", "drop", "refuse"] = Field(
        "impute",
        description="rows with a missing value: the ONNX model fills it in (median; own category), drop, or refuse",
    )
    out_of_range: Literal["drop", "clip", "refuse"] = Field(
        "drop", description="values outside data.ranges, and infinite ones"
    )
    unreadable: Literal["drop", "refuse"] = Field(
        "refuse", description="images that cannot be decoded, rows that cannot be parsed"
    )
    image_size: tuple[Count, Count] | None = Field(None, description="[height, width] that images are resized to")
    color: Literal["grey", "rgb"] | None = Field(
        None, description="colour of images in a folder; as the first image is by default"
    )
    normalise: Literal["standard", "minmax", "none"] = Field(
        "standard",
        description="(x - mean) / deviation, to 0 … 1, or as it is; of the training rows, part of the ONNX model",
    )
    encode: Literal["onehot", "ordinal"] = Field(
        "onehot", description="how categories become numbers; part of the ONNX model"
    )
    augment: AugmentConfig = Field(AugmentConfig(), description="random changes of training images")
