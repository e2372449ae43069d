"""What a specialisation does, step by step: phases, each with its task, rate and topology updates.

A method is a config and the plan that it makes; the runner knows phases only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ofa_deploy.specialize.config import (
    DistillConfig,
    DstConfig,
    EdstConfig,
    FinetuneConfig,
    OptimizerName,
    SparseSettings,
    SpecializeConfig,
    WideNarrowConfig,
)
from ofa_deploy.specialize.units import Unit
from ofa_deploy.train import Phases, cosine, nth

__all__ = ["Imitate", "Learn", "SpecialPhase", "SpecialPlan", "specialize_plan"]

Rate = Callable[[int], float]
Start = Literal["begin member", "restart optimizer", "merge"]
_ANEW: tuple[Start, ...] = ("begin member", "restart optimizer")


@dataclass(frozen=True)
class Imitate:
    """Bring one unit's output near the parent's.

    Attributes:
        unit: its index.
        below: whether the units before it move too.
    """

    unit: int
    below: bool


@dataclass(frozen=True)
class Learn:
    """Train the whole network.

    Attributes:
        labels: weight of the cross-entropy on labels.
        soft: weight of the divergence from the parent's soft labels.
    """

    labels: float = 1.0
    soft: float = 0.0


def never(step: int) -> float:
    """No topology update."""
    return 0.0


@dataclass(frozen=True)
class SpecialPhase:
    """A stretch of a run.

    Attributes:
        lr: learning rate by step of the phase.
        start: what is done once, before its first step, in this order.
        drop: the share of each sparse layer's weights that is exchanged after a step of the phase.
        member: whether its outcome is one of the networks that the run gives.
    """

    name: str
    steps: int
    lr: Rate
    task: Imitate | Learn
    start: tuple[Start, ...] = ()
    optimizer: OptimizerName = "sgd"
    drop: Rate = never
    member: bool = False


SpecialPlan = Phases[SpecialPhase]


def specialize_plan(
    config: SpecializeConfig, units: Sequence[Unit], steps_per_epoch: int
) -> SpecialPlan:
    """The plan of a run.

    Args:
        units: the student's; the last is the classifier.
    """

    def steps(epochs: float) -> int:
        return max(1, round(epochs * steps_per_epoch)) if epochs else 0

    match config:
        case FinetuneConfig() | DistillConfig():
            return _members(config, steps(config.epochs))
        case DstConfig():
            return _dst(config, steps(config.epochs))
        case EdstConfig():
            return _edst(config, steps)
        case WideNarrowConfig():
            return _wide_narrow(config, units, steps)


def _members(config: FinetuneConfig | DistillConfig, steps: int) -> SpecialPlan:
    rate = _cosine(config, config.lr, steps)
    task = Learn(soft=config.kd_ratio)
    phase = SpecialPhase("train", steps, rate, task, _ANEW, config.optimizer, member=True)
    return Phases((phase,) * config.members)


def _dst(config: DstConfig, steps: int) -> SpecialPlan:
    phase = SpecialPhase(
        "sparse",
        steps,
        _rates(config, steps),
        Learn(soft=config.kd_ratio),
        _ANEW,
        config.optimizer,
        drop=_drops(config, steps),
        member=True,
    )
    return Phases((phase,) * config.members)


def _edst(config: EdstConfig, steps: Callable[[float], int]) -> SpecialPlan:
    explore, refine = steps(config.explore_epochs), steps(config.refine_epochs)
    task = Learn(soft=config.kd_ratio)

    def refining(member: int) -> SpecialPhase:
        return SpecialPhase(
            f"refine {member + 1}",
            refine,
            _rates(config, refine),
            task,
            () if explore or member else _ANEW,
            config.optimizer,
            drop=_drops(config, refine, first=config.regrow if member else 0.0),
            member=True,
        )

    exploring = SpecialPhase(
        "explore",
        explore,
        lambda step: config.lr,
        task,
        _ANEW,
        config.optimizer,
        drop=_drops(config, explore),
    )
    phases = [refining(member) for member in range(config.members)]
    return Phases((*([exploring] if explore else []), *phases))


def _wide_narrow(
    config: WideNarrowConfig, units: Sequence[Unit], steps: Callable[[float], int]
) -> SpecialPlan:
    phases = []
    for index, unit in enumerate(units[:-1]):
        length = steps(nth(config.imitate_epochs, index))
        phases.append(
            SpecialPhase(
                f"imitate {unit.name}",
                length,
                _cosine(config, config.lr * nth(config.imitate_lr, index), length),
                Imitate(index, below=config.trains == "below"),
                ("restart optimizer",),
                nth(config.imitate_optimizer, index),
            )
        )
    output, label = steps(config.output_epochs), steps(config.label_epochs)
    rest: list[tuple[str, int, float, Learn]] = [
        ("outputs", output, config.output_lr, Learn(labels=0.0, soft=1.0)),
        ("labels", label, config.label_lr, Learn(soft=config.kd_ratio)),
    ]
    for position, (name, length, share, task) in enumerate(rest):
        merge: tuple[Start, ...] = ("merge",) if position == 0 or not output else ()
        phases.append(
            SpecialPhase(
                name,
                length,
                _cosine(config, config.lr * share, length),
                task,
                (*merge, "restart optimizer"),
                config.optimizer,
                member=name == "labels",
            )
        )
    kept = [phase for phase in phases if phase.steps]
    kept[0] = replace(kept[0], start=("begin member", *kept[0].start))
    return Phases(tuple(kept))


def _cosine(config: SpecializeConfig, lr: float, steps: int) -> Rate:
    return lambda step: max(config.lr_min, cosine(lr, step, steps))


def _rates(config: DstConfig | EdstConfig, steps: int) -> Rate:
    """The shares of ``config.rates``, each for an equal part of the steps, or a cosine."""
    if not config.rates:
        return _cosine(config, config.lr, steps)
    return lambda step: config.lr * config.rates[step * len(config.rates) // steps]


def _drops(config: SparseSettings, steps: int, *, first: float = 0.0) -> Rate:
    """What is dropped after each step: every ΔT steps, decayed by a cosine, and none at the end.

    Args:
        first: what is dropped after the first step, whatever else.
    """
    stop = config.update_until * steps

    def drop(step: int) -> float:
        if step == 0 and first and steps > 1:
            return first
        taken = step + 1
        if taken % config.update_steps or taken >= stop:
            return 0.0
        return 0.5 * config.drop_rate * (1 + math.cos(math.pi * taken / stop))

    return drop
