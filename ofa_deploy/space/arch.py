"""``Arch``: one subnet as a small frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import islice
from math import isfinite
from typing import Any

from ofa_deploy.errors import FileFormatError

__all__ = ["Arch", "Cost"]


@dataclass(frozen=True)
class Arch:
    """One subnet of a space.

    Only active blocks are listed, stage by stage, so equal networks are equal values. Fixed
    stages of the space (those without a choice) do not appear.

    Attributes:
        resolution: height and width of the input image, in pixels.
        depths: active blocks of each elastic stage; in ResNet spaces, as its configs write them:
            whether the stem's residual convolution is kept (2), then blocks beyond the base.
        kernels: depthwise kernel size of each active block.
        expands: expansion ratio of each active block.
        widths: indices of width multipliers, in spaces that have them.
    """

    resolution: int
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[float, ...]
    widths: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form, read back by ``from_dict``."""
        value = {
            "resolution": self.resolution,
            "depths": list(self.depths),
            "kernels": list(self.kernels),
            "expands": list(self.expands),
        }
        return value | ({"widths": list(self.widths)} if self.widths else {})

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Arch":
        """Read what ``to_dict`` wrote; whether a space has this arch is the space's to say.

        Raises:
            FileFormatError: if a field is missing, unknown or not a list of numbers.
        """
        if unknown := sorted(map(str, set(value) - _FIELDS)) if isinstance(value, Mapping) else []:
            raise FileFormatError(f"not an arch: unknown field {unknown[0][:60]!r}")
        try:
            return cls(
                resolution=_whole(value["resolution"]),
                depths=tuple(_whole(item) for item in _listed(value["depths"])),
                kernels=tuple(_whole(item) for item in _listed(value["kernels"])),
                expands=tuple(_number(item) for item in _listed(value["expands"])),
                widths=tuple(_whole(item) for item in _listed(value.get("widths", ()))),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise FileFormatError(
                f"not an arch: {error}; expected the form of a subnet file"
            ) from None

    def __str__(self) -> str:
        blocks = [f"k{k}e{e:g}" for k, e in zip(self.kernels, self.expands, strict=False)]
        widths = f" w{','.join(map(str, self.widths))}" if self.widths else ""
        if sum(self.depths) != len(blocks):  # depths beyond a base that only the space knows
            depths = ",".join(map(str, self.depths))
            return f"r{self.resolution} d{depths}{widths} | {' '.join(blocks)}"
        left = iter(blocks)
        stages = [" ".join(islice(left, depth)) for depth in self.depths]
        return f"r{self.resolution}{widths} | " + " | ".join(stages)


_FIELDS = frozenset(field.name for field in fields(Arch))


def _listed(value: object) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r:.60} is no list")
    return value


_MOST = 2**31  # far beyond any choice of a space, and well within what messages can show


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TypeError(f"{value!r:.60} is not a finite number")
    _check_size(value)
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r:.60} is not a whole number")
    _check_size(value)
    return value


def _check_size(value: int | float) -> None:
    if not -_MOST <= value <= _MOST:
        raise TypeError(f"{value!r:.60} is beyond {_MOST:,}")


@dataclass(frozen=True)
class Cost:
    """What a network costs wherever it runs.

    Attributes:
        macs: multiply-accumulates for one image.
        params: trained parameters.
        peak_memory: most bytes of float32 activations alive at once, for one image.
    """

    macs: int
    params: int
    peak_memory: int
