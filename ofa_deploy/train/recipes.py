"""Recipes: a method, a space, data and settings under one name, such as ``deps-cifar10``.

The settings of DεpS and of the baselines on ImageNet are the papers'; those of smaller data keep
their proportions (shares of epochs, rate for the batch). Where a paper is silent the choice is
ours: the batch and weight decay on CIFAR, everything about glyphs and folders, and SGD at the same
rate for BigNAS, whose RMSProp is ``--set optimizer=rmsprop`` with a rate of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ofa_deploy.errors import UnknownNameError
from ofa_deploy.train.config import DepsConfig, TrainConfig, build_config

__all__ = ["Recipe", "get_recipe", "recipe_names"]

_PAPER = 270  # DεpS's epochs on ImageNet
_SHORT = 50  # epochs below which each is a large share of the run


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, how.

    Attributes:
        images_a_step: of all processes together, that ``config.lr`` is meant for.
    """

    name: str
    space: str
    data: str
    config: TrainConfig
    images_a_step: int

    def ramp(self, epochs: int) -> dict[str, int]:
        """DεpS's W and s for other epochs than the recipe's, in its proportions; by setting.

        Nothing where the shares of ``DepsConfig`` hold: for other methods and for few epochs.
        """
        if not isinstance(self.config, DepsConfig) or min(epochs, self.config.epochs) < _SHORT:
            return {}
        return _ramp(epochs / _PAPER)


@dataclass(frozen=True)
class _Source:
    """What recipes for some data have in common.

    Attributes:
        scale: epochs for one of DεpS's 270 on ImageNet.
    """

    space: str
    data: str
    scale: float
    images_a_step: int
    settings: Mapping[str, Any]


_IMAGENET = "rrc+flip+autoaugment+jitter+erase"
_CIFAR = {"batch": 128, "lr": 0.1, "augment": "crop+flip", "calibration": 2_000}
_SOURCES = {
    "glyphs": _Source("mbv3-nano-32", "glyphs", 8 / 270, 64, {"batch": 64, "lr": 0.1}),
    "images": _Source(
        "mbv3-nano-32", "", 30 / 270, 64, {"batch": 64, "lr": 0.1, "augment": "crop+flip"}
    ),
    "cifar10": _Source("deps-mbv3-32", "cifar10", 200 / 270, 128, _CIFAR),
    "cifar100": _Source("deps-mbv3-32", "cifar100", 200 / 270, 128, _CIFAR),
    "imagenet100": _Source(
        "deps-mbv3", "", 1, 256, {"batch": 64, "lr": 0.325, "augment": _IMAGENET}
    ),
    "imagenet": _Source("deps-mbv3", "", 1, 2048, {"batch": 128, "lr": 2.6, "augment": _IMAGENET}),
}


def _lengths(scale: float, *epochs: int) -> list[int]:
    return [max(1, round(scale * length)) for length in epochs]


def _deps(scale: float) -> dict[str, Any]:
    (total,) = _lengths(scale, _PAPER)
    ramp = _ramp(scale) if total >= _SHORT else {}  # else the shares of DepsConfig
    return {"method": "deps", "epochs": total, **ramp}


def _ramp(scale: float) -> dict[str, int]:
    end, length = _lengths(scale, 150, 5)
    return {"ramp_end": end, "ramp_epochs": length}


def _bignas(scale: float) -> dict[str, Any]:
    (epochs,) = _lengths(scale, 400)
    # 0.97 every 2.4 epochs of 360, as in EfficientNet's schedule that BigNAS takes up
    return {"method": "bignas", "epochs": epochs, "decay": 0.97 ** (1 / (2.4 * scale))}


def _alphanet(scale: float) -> dict[str, Any]:
    return {**_bignas(scale), "divergence": "alpha"}


def _progressive(scale: float) -> dict[str, Any]:
    teacher, kernel, first, rest = _lengths(scale, 180, 120, 25, 120)
    return {
        "method": "progressive",
        "teacher_epochs": teacher,
        "kernel_epochs": kernel,
        "depth_epochs": (first, rest),
        "expand_epochs": (first, rest),
        "warmup_epochs": round(scale * 5),
    }


def _compofa(scale: float) -> dict[str, Any]:
    teacher, first, rest = _lengths(scale, 180, 25, 120)
    return {
        "method": "compofa",
        "teacher_epochs": teacher,
        "phase_epochs": (first, rest),
        "warmup_epochs": round(scale * 5),
    }


_METHODS: dict[str, Callable[[float], dict[str, Any]]] = {
    "deps": _deps,
    "progressive": _progressive,
    "bignas": _bignas,
    "compofa": _compofa,
    "alphanet": _alphanet,
}


def recipe_names() -> tuple[str, ...]:
    """All recipes: METHOD-DATA."""
    return tuple(f"{method}-{data}" for method in _METHODS for data in _SOURCES)


def get_recipe(name: str, *, scale: float = 1.0) -> Recipe:
    """The recipe of that name.

    Args:
        scale: all its lengths are this many times the recipe's.

    Raises:
        UnknownNameError: listing the nearest names.
    """
    if name not in recipe_names():
        raise UnknownNameError("recipe", name, recipe_names(), hint="it is METHOD-DATA")
    method, _, data = name.partition("-")
    source = _SOURCES[data]
    settings = {**source.settings, **_METHODS[method](scale * source.scale)}
    config = build_config(settings.pop("method"), **settings)
    return Recipe(name, source.space, source.data, config, source.images_a_step)
