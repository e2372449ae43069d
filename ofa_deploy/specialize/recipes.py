"""Lengths, rates and densities of specialisation for kinds of data: METHOD-DATA.

Proportions are the published ones: 10 epochs a stage at 0.1 and 50 of soft labels (wide-narrow,
from a reproduction; on ImageNet these are the lengths), 150 epochs of exploration and 100 a ticket
at 0.1, 0.01 and 0.001 (EDST), sparsity 0.8. How long the rest lasts, and every rate for weights
that were trained before, is ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ofa_deploy.errors import UnknownNameError
from ofa_deploy.specialize.config import METHODS, SpecializeConfig, build_specialize_config

__all__ = ["recipe_data", "specialize_recipe", "specialize_recipes"]


@dataclass(frozen=True)
class _Source:
    """What recipes for some data have in common.

    Attributes:
        epochs: of a whole run, whatever the method.
        settings: of every method.
        methods: of some.
    """

    epochs: float
    settings: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]


def _sparse(sparsity: float, update_steps: int, **edst: Any) -> dict[str, dict[str, Any]]:
    both = {"sparsity": sparsity, "update_steps": update_steps}
    return {"dst": both, "edst": {**both, **edst}}


# Of few steps each must count: a cosine for every ticket, and imitation at a high rate, which a
# distance relative to the parent's own size bears.
_SHORT = {**_sparse(0.5, 20, rates=()), "wide-narrow": {"imitate_lr": (10.0,)}}
_SOURCES = {
    "glyphs": _Source(12, {"batch": 64, "lr": 0.06}, _SHORT),
    "images": _Source(20, {"batch": 64, "lr": 0.03, "augment": "crop+flip"}, _SHORT),
    "cifar": _Source(60, {"batch": 128, "lr": 0.05, "augment": "crop+flip"}, _sparse(0.8, 100)),
    "imagenet": _Source(90, {"batch": 128, "lr": 0.1, "augment": "rrc+flip"}, _sparse(0.8, 1000)),
}
_OF_DATA = {"glyphs": "glyphs", "cifar10": "cifar", "cifar100": "cifar"}


def _whole(epochs: float) -> dict[str, Any]:
    return {"epochs": epochs}


def _wide_narrow(epochs: float) -> dict[str, Any]:
    # The sum is more than ``epochs``: imitation stops early in the network, and costs less.
    return {
        "imitate_epochs": (epochs / 9,),
        "output_epochs": 5 * epochs / 9,
        "label_epochs": epochs / 3,
    }


def _dst(epochs: float) -> dict[str, Any]:
    return {"epochs": epochs / 3, "members": 3}


def _edst(epochs: float) -> dict[str, Any]:
    return {"explore_epochs": epochs / 3, "refine_epochs": 2 * epochs / 9, "members": 3}


_METHODS: dict[str, Callable[[float], dict[str, Any]]] = {
    "finetune": _whole,
    "distill": _whole,
    "wide-narrow": _wide_narrow,
    "dst": _dst,
    "edst": _edst,
}


def recipe_data(data: str) -> str:
    """Which recipes suit a data set: those of its name, or those for images of one's own."""
    return _OF_DATA.get(data, "images")


def specialize_recipes() -> tuple[str, ...]:
    """All recipes: METHOD-DATA."""
    return tuple(f"{method}-{data}" for method in METHODS for data in _SOURCES)


def specialize_recipe(
    method: str, data: str, *, scale: float = 1.0, **settings: Any
) -> SpecializeConfig:
    """The settings of a method for a kind of data.

    Args:
        data: ``glyphs``, ``cifar``, ``images`` or ``imagenet``.
        scale: all lengths are this many times the recipe's.
        settings: over the recipe's.

    Raises:
        UnknownNameError: listing the nearest names.
        InputError: one line that names a setting that is wrong.
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    if data not in _SOURCES:
        raise UnknownNameError("recipe", f"{method}-{data}", specialize_recipes())
    source = _SOURCES[data]
    own = source.methods.get(method, {})
    lengths = _METHODS[method](scale * source.epochs)
    return build_specialize_config(method, **{**source.settings, **own, **lengths, **settings})
