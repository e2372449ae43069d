"""What a space is made of, as checked data: stem, stages, head."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ofa_deploy.checks import problem
from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.files import digest, read_toml
from ofa_deploy.space.block import Activation, make_divisible

__all__ = ["CHECKED", "Head", "Layout", "Stage", "Stem", "deep_middle"]

CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)

_MOST_CHOICES = 100  # populations are int8
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")]  # part of file names
Positive = Annotated[int, Field(strict=True, gt=0, le=2**20)]
Size = Annotated[int, Field(strict=True, ge=0, le=2**20)]
Depth = Annotated[int, Field(strict=True, ge=0, le=64)]
Ratio = Annotated[float, Field(strict=True, gt=0, le=64)]
Flag = Annotated[bool, Field(strict=True)]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Stem:
    """What an image meets first.

    Attributes:
        kind: ``conv`` is one convolution. ``deep`` is ResNet-D's (He et al. 2019): a convolution
            with the stride to half the channels, a residual one that can be left out, one to
            ``channels``, and a 3x3 max-pool of stride 2.
        depths: for ``deep``: 0 leaves the residual convolution out, another value keeps it; both
            to choose between.
    """

    channels: Positive
    kind: Literal["conv", "deep"] = "conv"
    kernel: Positive = 3
    stride: Positive = 2
    activation: Activation = "hswish"
    depths: tuple[Depth, ...] = ()


def deep_middle(channels: int) -> int:
    """Channels within a deep stem that ends in so many."""
    return make_divisible(channels // 2)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Stage:
    """Blocks of one width; the first carries the stride.

    A stage with nothing to choose is fixed: it has no genes and does not appear in an ``Arch``.

    Attributes:
        kind: ``mbconv`` (inverted residual) or ``bottleneck`` (ResNet's).
        base_depth: blocks that are always there; ``depths`` counts those beyond.
        expands: middle channels over input channels (mbconv) or over output channels (bottleneck).
        coupled: whether the depth decides the expansion ratio: the first depth goes with the first
            ratio, and so on (CompOFA, Sahni et al. 2021).
        se: whether blocks have squeeze-excite.
    """

    channels: Positive
    stride: Positive
    depths: tuple[Depth, ...]
    kernels: tuple[Positive, ...]
    expands: tuple[Ratio, ...]
    kind: Literal["mbconv", "bottleneck"] = "mbconv"
    base_depth: Depth = 0
    coupled: Flag = False
    activation: Activation = "hswish"
    se: Flag = False

    @property
    def elastic(self) -> bool:
        """Whether anything in the stage can be chosen."""
        return max(len(self.depths), len(self.kernels), len(self.expands)) > 1

    @property
    def most(self) -> int:
        """Blocks when it is deepest."""
        return self.base_depth + max(self.depths)

    def mid_channels(self, expand: float, in_channels: int, out_channels: int) -> int:
        """Middle channels of one of its blocks; an mbconv with as many as come in has no expansion.

        A ratio of 1 takes the input channels as they are, any other rounds to a multiple of 8.
        """
        if self.kind == "bottleneck":
            return make_divisible(round(out_channels * expand))
        return in_channels if expand == 1 else make_divisible(round(in_channels * expand))


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Head:
    """What follows the last stage: 1x1 conv, pooling, 1x1 features, linear (0 leaves one out)."""

    channels: Size
    features: Size
    activation: Activation = "hswish"


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Layout:
    """The data of a space, checked.

    Attributes:
        resolutions: input sizes to choose from, in pixels.
        width_multipliers: what the stem and each stage choose among for their channels; empty
            where widths are fixed.
    """

    name: Name
    resolutions: tuple[Positive, ...]
    classes: Positive
    stem: Stem
    stages: Annotated[tuple[Stage, ...], Field(max_length=64)]
    head: Head
    bn_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-5
    width_multipliers: tuple[Ratio, ...] = ()

    def __post_init__(self) -> None:
        if self.classes < 2:
            self._refuse(f"expected at least 2 classes, found {self.classes}")
        for what, choices in self._choice_lists():
            if not choices or list(choices) != sorted(set(choices)):
                self._refuse(f"expected {what} not empty and ascending, found {choices}")
            if len(choices) > _MOST_CHOICES:
                self._refuse(f"expected at most {_MOST_CHOICES} {what}, found {len(choices)}")
        kernels = [self.stem.kernel, *(kernel for stage in self.stages for kernel in stage.kernels)]
        if any(kernel % 2 == 0 for kernel in kernels):
            self._refuse(f"kernel sizes must be odd, found {kernels}")
        self._check_stem()
        for index, stage in enumerate(self.stages):
            self._check_stage(index, stage)

    def _refuse(self, why: str) -> None:
        raise InputError(f"space {self.name}: {why}")

    def _choice_lists(self) -> Iterator[tuple[str, tuple[float, ...]]]:
        yield "resolutions", self.resolutions
        if self.width_multipliers:
            yield "width_multipliers", self.width_multipliers
        if self.stem.kind == "deep":
            yield "the stem's depths", self.stem.depths
        for i, stage in enumerate(self.stages):
            for name in ("depths", "kernels", "expands"):
                yield f"{name} of stage {i}", getattr(stage, name)

    def _check_stem(self) -> None:
        if self.stem.kind == "conv" and self.stem.depths:
            self._refuse("only a stem of kind 'deep' has depths")
        choices = self.stem.depths
        if len(choices) > 1 and (len(choices) > 2 or choices[0]):
            self._refuse(f"expected the stem's depths to be 0 and another, found {choices}")

    def _check_stage(self, index: int, stage: Stage) -> None:
        if stage.base_depth + stage.depths[0] < 1:
            self._refuse(f"stage {index} needs at least one block, found depths {stage.depths}")
        if stage.coupled and len(stage.depths) != len(stage.expands):
            self._refuse(
                f"coupled stage {index} needs as many expands as depths, found "
                f"{len(stage.expands)} and {len(stage.depths)}"
            )
        if stage.kind == "bottleneck" and (stage.se or len(stage.kernels) > 1):
            self._refuse(f"bottleneck stage {index}: expected one kernel size and no se")
        if stage.kind == "mbconv" and self.width_multipliers:
            self._refuse(f"width_multipliers need bottleneck stages, stage {index} is of mbconv")
        for inputs, outputs in self._stage_widths(index):
            mids = [stage.mid_channels(expand, inputs, outputs) for expand in stage.expands]
            if stage.kind == "mbconv" and mids[-1] == inputs and len(mids) > 1:
                self._refuse(
                    f"stage {index}: expands {stage.expands} end with no expansion of {inputs} "
                    "channels; expected greater ratios after smaller ones"
                )
            if len(set(mids)) < len(mids) and not stage.coupled:
                self._refuse(
                    f"stage {index}: expands {stage.expands} give {mids} middle channels (multiples"
                    " of 8), so different choices would be one network; choose them further apart"
                )

    def _stage_widths(self, index: int) -> Iterator[tuple[int, int]]:
        """(in, out) channels of the blocks of a stage, for every width."""
        before = self.stages[index - 1].channels if index else self.stem.channels
        for outputs in self.widths(self.stages[index].channels):
            yield before, outputs
            if self.stages[index].most > 1:
                yield outputs, outputs

    def widths(self, channels: int) -> tuple[int, ...]:
        """``channels`` by each width multiplier, or just themselves where widths are fixed."""
        if not self.width_multipliers:
            return (channels,)
        return tuple(make_divisible(channels * multiplier) for multiplier in self.width_multipliers)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form, read back by ``from_dict``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read what ``to_dict`` wrote.

        Raises:
            FileFormatError: if a field is missing, unknown or of the wrong type.
        """
        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            raise FileFormatError(f"not a search space: {problem(error)}") from None
        except InputError as error:
            raise FileFormatError(f"not a search space: {error}") from None

    @classmethod
    def from_toml(cls, path: Path | str) -> Self:
        """Read a space that a person wrote: it is named after the file unless it has a name.

        Raises:
            FileFormatError: one line that names the file, the field and what is wrong with it.
        """
        path = Path(path)
        try:
            value = read_toml(path)
            if isinstance(value.get("stages"), dict):
                raise FileFormatError(
                    "not a search space: expected every stage under [[stages]], found [stages]"
                )
            return cls.from_dict({"name": re.sub(r"[^A-Za-z0-9._+-]", "-", path.stem), **value})
        except FileFormatError as error:
            message = str(error)
            raise FileFormatError(
                message if message.startswith(str(path)) else f"{path}: {message}"
            ) from None

    @cached_property
    def fingerprint(self) -> str:
        """A short name for exactly this space, classes included."""
        return digest({**self.to_dict(), "name": ""})
