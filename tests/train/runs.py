"""Runs that are watched and stopped, and what they must end with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ofa_deploy.data import ImageSet
from ofa_deploy.terminal import Work
from ofa_deploy.train import Plan, Rule, RunFile

OUTPUTS = ("metrics.csv", "run.json", "supernet.safetensors")


def quarters(count: int, seed: int) -> ImageSet:
    """Noise with a bright quarter; which quarter is the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = rng.integers(0, 160, (count, 3, 16, 16))
    for image, label in zip(images, labels, strict=True):
        top, left = 8 * (label // 2), 8 * (label % 2)
        image[:, top : top + 8, left : left + 8] += 90
    return ImageSet(images.astype(np.uint8), labels, ("ne", "nw", "se", "sw"))


class Watch:
    """Progress that calls back after every step with the number of steps taken."""

    def __init__(self, after_step: Callable[[int], None]) -> None:
        self.after_step = after_step
        self.steps = 0
        self.said: list[str] = []

    @contextmanager
    def task(
        self, description: str, total: int, *, done: int = 0, work: Work = float
    ) -> Iterator["Watch"]:
        self.steps = done
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps
        self.after_step(self.steps)

    def say(self, message: str) -> None:
        self.said.append(message)


def stop_at(step: int) -> Watch:
    def interrupt(steps: int) -> None:
        if steps == step:
            raise KeyboardInterrupt

    return Watch(interrupt)


Train = Callable[..., RunFile]


def assert_same_outcome(run: Path, finished: Path) -> None:
    kept = {path.name for path in run.iterdir()} - {".lock", "events"}  # those bear times
    assert kept == set(OUTPUTS)
    for name in OUTPUTS:
        assert (run / name).read_bytes() == (finished / name).read_bytes(), name


def lr_at(plan: Plan, step: int) -> float:
    """Learning rate of a step."""
    phase, local = plan.at(step)
    return phase.lr(local)


def rules_at(plan: Plan, step: int) -> tuple[Rule, ...]:
    """What a step trains, before its subnets are drawn."""
    phase, local = plan.at(step)
    return phase.rules(local)
