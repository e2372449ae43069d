"""Once-for-all's progressive shrinking (Cai et al. 2020): open one choice after the other.

First the largest network alone; as it then is, it stays the teacher. Then kernels, depths and
expansion ratios (widths with these, where they are elastic) are opened: kernels all at once, the
others from the greatest choice down, one a phase. A step trains 1, 2 or 4 random subnets of what is
open on labels and on the teacher's soft labels. Every phase has a cosine of its own; channels are
sorted before each expansion phase.
"""

from collections.abc import Sequence
from dataclasses import replace

from ofa_deploy.space import SearchSpace
from ofa_deploy.train.config import ProgressiveConfig
from ofa_deploy.train.plan import Opening, Phase, Plan, Rule, Start
from ofa_deploy.train.rates import cosine, nth, warmed_up

__all__ = [
    "frozen_first",
    "most_choices",
    "opening_phase",
    "progressive_plan",
    "teacher_phase",
]


def progressive_plan(config: ProgressiveConfig, space: SearchSpace, steps_per_epoch: int) -> Plan:
    """The teacher, then the phases that have something to open."""
    phases = [teacher_phase(config.teacher_epochs * steps_per_epoch, config.lr, config.lr_min)]

    def add(name: str, opening: Opening, subnets: int, epochs: int, share: float, n: int) -> None:
        sort: tuple[Start, ...] = ("sort channels",) if name.startswith("expand") else ()
        warm_up = config.warmup_epochs if n else 0
        phases.append(
            opening_phase(
                name,
                (Rule("random", target="labels+frozen", opening=opening),) * subnets,
                steps=epochs * steps_per_epoch,
                warm_up=warm_up * steps_per_epoch,
                lr=share * config.lr,
                lr_min=config.lr_min,
                start=(*sort, "restart optimizer"),
            )
        )

    if most_choices(space, "kernel") > 1:
        closed = Opening(depths=1, expands=1, widths=1)
        add("kernel", closed, 1, config.kernel_epochs, config.kernel_lr, 1)
    for n in range(1, most_choices(space, "depth")):
        length, share = nth(config.depth_epochs, n - 1), nth(config.depth_lr, n - 1)
        add(f"depth {n}", Opening(depths=n + 1, expands=1, widths=1), 2, length, share, n - 1)
    for n in range(1, most_choices(space, "expand", "width")):
        length, share = nth(config.expand_epochs, n - 1), nth(config.expand_lr, n - 1)
        add(f"expand {n}", Opening(expands=n + 1, widths=n + 1), 4, length, share, n - 1)
    return frozen_first(phases)


def most_choices(space: SearchSpace, *kinds: str) -> int:
    """The choices of the gene that has the most, among those of some kinds; 1 if there is none."""
    return max((len(gene.choices) for gene in space.genes if gene.kind in kinds), default=1)


def teacher_phase(steps: int, lr: float, lr_min: float) -> Phase:
    """The largest network alone, on labels."""
    rules = (Rule("largest", dropout=True),)
    return Phase(
        "teacher", steps, lambda step: max(lr_min, cosine(lr, step, steps)), lambda _: rules
    )


def opening_phase(
    name: str,
    rules: tuple[Rule, ...],
    *,
    steps: int,
    warm_up: int,
    lr: float,
    lr_min: float,
    start: tuple[Start, ...],
) -> Phase:
    """Subnets under a cosine of their own, after a warm-up that comes on top."""
    warm_up = warm_up if steps else 0
    rate = warmed_up(lr, warm_up, lambda step: max(lr_min, cosine(lr, step, steps)))
    return Phase(name, steps + warm_up, rate, lambda _: rules, start)


def frozen_first(phases: Sequence[Phase]) -> Plan:
    """The phases that have steps; the first after the teacher's freezes it."""
    teacher, *rest = phases
    rest = [phase for phase in rest if phase.steps]
    if rest:
        start: tuple[Start, ...] = ("freeze teacher", *rest[0].start)
        rest[0] = replace(rest[0], start=start)
    return Plan((*([teacher] if teacher.steps else []), *rest))
