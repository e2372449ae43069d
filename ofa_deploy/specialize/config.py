"""Settings of specialisation, validated where they are built; one class a method.

Lengths are in epochs and need not be whole; shares are of ``lr``. What the papers leave open is a
setting, and its default is ours: see each class.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofa_deploy.checks import PositiveCount
from ofa_deploy.errors import UnknownNameError
from ofa_deploy.train import Common

__all__ = [
    "METHODS",
    "AnySpecialize",
    "DistillConfig",
    "DstConfig",
    "EdstConfig",
    "FinetuneConfig",
    "SparseSettings",
    "SpecializeConfig",
    "WideNarrowConfig",
    "build_specialize_config",
]

Length = Annotated[float, Field(ge=0, le=100_000)]
Share = Annotated[float, Field(gt=0, le=100)]
Start = Literal["inherited", "random"]
OptimizerName = Literal["sgd", "rmsprop"]
KeptDense = Literal["depthwise", "se", "stem", "classifier"]


class SpecializeSettings(Common):
    """What every method has.

    Attributes:
        lr: the greatest learning rate; a fifth of what supernets of the same data train with, since
            the weights are trained already.
        lr_min: the floor of every cosine.
        kd_ratio: weight of the parent's soft labels beside the hard ones.
        keep: whether a phase that ends in a network gives the ``best`` of its epochs on the
            validation images (of equals the last), or the ``last``.
    """

    lr: float = Field(0.02, gt=0)
    lr_min: float = Field(0.0, ge=0)
    keep: Literal["best", "last"] = "best"

    @property
    def needs_parent(self) -> bool:
        """Whether there must be a network to learn from."""
        return self.kd_ratio > 0


class MemberSettings(SpecializeSettings):
    """What methods have that give one network or several.

    Attributes:
        members: of the ensemble; 1 gives a single subnet. Each sees the images in an order of its
            own.
        start: the weights that each member starts from: the subnet's, or random ones of its own.
    """

    kd_ratio: float = Field(0.0, ge=0)
    members: int = Field(1, ge=1, le=64)
    start: Start = "inherited"


class FinetuneConfig(MemberSettings):
    """Train on, on labels.

    Attributes:
        epochs: of each member, under one cosine.
    """

    method: Literal["finetune"] = "finetune"
    epochs: float = Field(10.0, gt=0, le=100_000)

    @model_validator(mode="after")
    def _labels_only(self) -> Self:
        if self.kd_ratio:
            raise ValueError("finetune learns from labels; for a parent's use the method distill")
        return self


class DistillConfig(MemberSettings):
    """Train on, on labels and on the parent's soft labels.

    Attributes:
        epochs: of each member, under one cosine.
    """

    method: Literal["distill"] = "distill"
    epochs: float = Field(10.0, gt=0, le=100_000)
    kd_ratio: float = Field(1.0, gt=0)


class WideNarrowConfig(SpecializeSettings):
    """Imitate a wide parent stage by stage, then its outputs, then learn (arXiv 2007.00811).

    A unit is what stands between two changes of stage: the stem, each stage, the head. Of the lists
    the first value is the first unit's, and the last stands for all further ones.

    Attributes:
        imitate_epochs: of each unit, bottom-up; 0 leaves a unit as it starts.
        imitate_lr: the start of each unit's cosine, as a share of ``lr``.
        imitate_optimizer: of each unit, always a fresh one.
        start: the weights of each unit, then the classifier's: the subnet's, or random.
        trains: whether imitation of a unit moves this ``unit`` alone (and the maps beside it), or
            also all units ``below``.
        relative: whether the squared distance is divided by the parent's own mean square, so that
            one rate serves every unit.
        output_epochs, output_lr: the whole net on the parent's soft labels alone.
        label_epochs, label_lr: the whole net on labels, and on soft ones by ``kd_ratio``.
    """

    method: Literal["wide-narrow"] = "wide-narrow"
    kd_ratio: float = Field(0.0, ge=0)
    imitate_epochs: tuple[Length, ...] = Field((1.0,), min_length=1)
    imitate_lr: tuple[Share, ...] = Field((1.0,), min_length=1)
    imitate_optimizer: tuple[OptimizerName, ...] = Field(("sgd",), min_length=1)
    start: tuple[Start, ...] = Field(("inherited",), min_length=1)
    trains: Literal["unit", "below"] = "unit"
    relative: bool = True
    output_epochs: Length = 5.0
    output_lr: Share = 1.0
    label_epochs: float = Field(5.0, gt=0, le=100_000)
    label_lr: Share = 1.0

    @property
    def needs_parent(self) -> bool:
        return True


class SparseSettings(MemberSettings):
    """What both methods of sparse training have (arXiv 2106.14568).

    Attributes:
        sparsity: the share of maskable weights that are zero; 0 trains dense members.
        densities: how it is spread over layers: ``erk``, or ``uniform``.
        dense: what stays dense. ERK saves little in depthwise kernels and SE layers, and breaks
            them.
        first_mask: which weights a member begins with: those of greatest ``magnitude``, or
            ``random`` ones as in the paper, which starts from random weights too.
        growth: where the dense gradient is largest (``rigl``), or anywhere (``set``).
        drop_rate: the share of a layer's weights that the first update drops; it decays by a cosine
            until ``update_until``.
        update_steps: steps from one update to the next, ΔT.
        update_until: the share of a phase after which the topology stays.
    """

    sparsity: float = Field(0.8, ge=0, lt=1)
    densities: Literal["erk", "uniform"] = "erk"
    dense: tuple[KeptDense, ...] = ("depthwise", "se", "stem", "classifier")
    first_mask: Literal["magnitude", "random"] = "magnitude"
    growth: Literal["rigl", "set"] = "rigl"
    drop_rate: float = Field(0.5, ge=0, lt=1)
    update_steps: PositiveCount = 100
    update_until: float = Field(0.75, ge=0, lt=1)
    members: int = Field(3, ge=1, le=64)
    rates: tuple[Share, ...] = ()


class DstConfig(SparseSettings):
    """Independent sparse runs, one a member.

    Attributes:
        epochs: of each member.
        rates: shares of ``lr``, each for an equal part of a member's steps; none is a cosine.
    """

    method: Literal["dst"] = "dst"
    epochs: float = Field(10.0, gt=0, le=100_000)


class EdstConfig(SparseSettings):
    """One sparse run that passes through several networks.

    Exploration at a high constant rate, then a refinement phase a member, at low rates. Between two
    of these a large share of every layer is dropped and regrown at once.

    Attributes:
        explore_epochs: at ``lr``.
        refine_epochs: of each member.
        rates: of refinement, as in ``DstConfig``.
        regrow: the share of each layer that is exchanged between members, q.
    """

    method: Literal["edst"] = "edst"
    explore_epochs: Length = 5.0
    refine_epochs: float = Field(4.0, gt=0, le=100_000)
    rates: tuple[Share, ...] = (0.1, 0.01)
    regrow: float = Field(0.8, gt=0, lt=1)


SpecializeConfig = FinetuneConfig | DistillConfig | WideNarrowConfig | DstConfig | EdstConfig
AnySpecialize = Annotated[SpecializeConfig, Field(discriminator="method")]
_BY_METHOD: dict[str, type[SpecializeConfig]] = {
    "finetune": FinetuneConfig,
    "distill": DistillConfig,
    "wide-narrow": WideNarrowConfig,
    "dst": DstConfig,
    "edst": EdstConfig,
}
METHODS = tuple(_BY_METHOD)


def build_specialize_config(method: str, **settings: Any) -> SpecializeConfig:
    """The config of a method, from a person's settings.

    Raises:
        InputError: one line that names the method or the setting.
    """
    if method not in _BY_METHOD:
        raise UnknownNameError("method", method, METHODS)
    return _BY_METHOD[method].build(**settings)
