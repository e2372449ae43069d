"""What a run does, step by step: phases, each with its rate, its subnets and their targets.

A training method is a config and the plan that it makes. The subnets of a step depend on
(seed, step) only, so they are the same on every rank and after a resume.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.space import Arch, Population, SearchSpace

__all__ = ["Opening", "Pass", "Phase", "Phases", "Plan", "Rule", "draw", "step_macs"]

_FORWARD_AND_BACKWARD = 3  # forward passes that both cost: a backward pass is about two

Role = Literal["largest", "smallest", "random"]
Target = Literal["labels", "teacher", "labels+frozen"]
Start = Literal["freeze teacher", "sort channels", "restart optimizer"]


@dataclass(frozen=True)
class Opening:
    """How many of the greatest choices random subnets may use, by sort of gene.

    Attributes:
        coupled: whether the n-th greatest depth of a stage goes with its n-th greatest expansion
            ratio (CompOFA).
    """

    kernels: int = 99
    depths: int = 99
    expands: int = 99
    widths: int = 99
    coupled: bool = False


@dataclass(frozen=True)
class Rule:
    """One forward and backward of a step, before its subnet is drawn.

    Attributes:
        role: which subnet; the name under which its loss is reported.
        weight: of its loss; a step sums the gradients of its passes.
        target: hard ``labels``; the soft labels of the step's ``teacher`` (its first pass); or
            both the labels and those of the ``frozen`` network.
        dropout: whether dropout is on.
        opening: what random subnets are drawn from.
    """

    role: Role
    weight: float = 1.0
    target: Target = "labels"
    dropout: bool = False
    opening: Opening = Opening()


@dataclass(frozen=True)
class Pass:
    """A ``Rule`` with its subnet."""

    role: Role
    arch: Arch
    weight: float
    target: Target
    dropout: bool


@dataclass(frozen=True)
class Phase:
    """A stretch of a run.

    Attributes:
        steps: how many.
        lr: learning rate by step of the phase.
        rules: what each step of the phase trains.
        start: what is done once, before its first step, in this order.
    """

    name: str
    steps: int
    lr: Callable[[int], float]
    rules: Callable[[int], tuple[Rule, ...]]
    start: tuple[Start, ...] = ()


class _Stretch(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def steps(self) -> int: ...


P = TypeVar("P", bound=_Stretch)


@dataclass(frozen=True)
class Phases(Generic[P]):
    """All phases of a run, in order."""

    phases: tuple[P, ...]

    @property
    def steps(self) -> int:
        """All steps of the run."""
        return sum(phase.steps for phase in self.phases)

    def at(self, step: int) -> tuple[P, int]:
        """The phase of a step, and the step's number within it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise IndexError("the run has no such step")

    def work(self, costs: Sequence[float], steps: int) -> float:
        """What the first ``steps`` of the run cost, from what one costs in each phase."""
        done = 0.0
        for phase, cost in zip(self.phases, costs, strict=True):
            done += cost * min(steps, phase.steps)
            steps = max(0, steps - phase.steps)
        return done

    def first_step(self, phase: str) -> int:
        """The step with which a phase begins; KeyError if the run has no such phase."""
        first = 0
        for each in self.phases:
            if each.name == phase:
                return first
            first += each.steps
        raise KeyError(phase)


@dataclass(frozen=True)
class Plan(Phases[Phase]):
    """The phases of a supernet's training."""

    def passes(self, space: SearchSpace, step: int, seed: int) -> tuple[Pass, ...]:
        """What a step trains."""
        rng = np.random.default_rng([seed, step, 0xA2C4])
        known = {"largest": space.largest, "smallest": space.smallest}
        passes = []
        phase, local = self.at(step)
        for rule in phase.rules(local):
            arch = known.get(rule.role) or space.decode(draw(space, rng, 1, rule.opening))[0]
            passes.append(Pass(rule.role, arch, rule.weight, rule.target, rule.dropout))
        return tuple(passes)


def draw(space: SearchSpace, rng: np.random.Generator, n: int, opening: Opening) -> Population:
    """Random networks of what is open, each gene uniform; shape (n, genes)."""
    limits = {
        "kernel": opening.kernels,
        "depth": opening.depths,
        "expand": opening.expands,
        "width": opening.widths,
    }
    counts = np.minimum(space.num_choices, [limits.get(gene.kind, 99) for gene in space.genes])
    closed = space.num_choices - counts
    chosen = closed + rng.integers(0, counts, size=(n, len(space.genes)))
    if opening.coupled:
        for column, gene in enumerate(space.genes):
            depth = space.columns.get(f"depth[{gene.stage}]")
            if gene.kind == "expand":
                most = space.num_choices[depth] - 1 if depth is not None else 0
                below = most - chosen[:, depth] if depth is not None else np.zeros(n, int)
                chosen[:, column] = np.maximum(len(gene.choices) - 1 - below, 0)
    return space.mask_inactive(chosen.astype(np.int8))


def step_macs(
    model: AdditiveModel, passes: Sequence[Pass], images: int, teacher: Arch | None
) -> float:
    """Multiply-accumulates of a step: its passes forward and backward, a fixed teacher forward.

    Args:
        model: of one network's multiply-accumulates.
        images: of all ranks.
    """
    trained = model.predict([each.arch for each in passes]).sum()
    taught = model.predict([teacher]).sum() if teacher is not None else 0
    return float(images * (_FORWARD_AND_BACKWARD * trained + taught))
