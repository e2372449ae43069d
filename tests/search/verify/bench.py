"""An examiner whose truth is known, and what holds of every answer that it gives."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.search import Verified, search_verified
from ofa_deploy.space import Arch, Population, SearchSpace

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accuracy:
    space: SearchSpace

    def predict(self, archs: Population) -> Floats:
        weights = np.random.default_rng(0).uniform(0.2, 2, archs.shape[1])
        return 30 + (archs + 1) @ weights


@dataclass
class Bench:
    """An examiner: latency is the prediction times ``factor(arch)``, top-1 less ``loss(arch)``."""

    accuracy: Accuracy
    latency: AdditiveModel
    factor: Callable[[Arch], float] = lambda arch: 1.0
    loss: Callable[[Arch], float] = lambda arch: 0.0
    rounds: list[list[Arch]] = field(default_factory=list)

    def __call__(self, archs: Sequence[Arch]) -> list[Mapping[str, float]]:
        self.rounds.append(list(archs))
        return [self.measure(arch) for arch in archs]

    def measure(self, arch: Arch) -> dict[str, float]:
        row = self.accuracy.space.encode([arch])
        return {
            "top1": float(self.accuracy.predict(row)[0]) - self.loss(arch),
            "latency": float(self.latency.predict(row)[0]) * self.factor(arch),
            "latency.p99": 2.0,
        }

    @property
    def examined(self) -> list[Arch]:
        return [arch for archs in self.rounds for arch in archs]


def verified(bench: Bench, constraints: Sequence[str], **options: object) -> Verified:
    return search_verified(
        bench.accuracy.space,
        bench,
        accuracy=bench.accuracy,
        latency=bench.latency,
        constraints=constraints,
        **options,  # type: ignore[arg-type]
    )


def middle(latency: AdditiveModel) -> float:
    """A limit that about half of the networks meet."""
    return round(sum(latency.bounds()) / 2, 3)


def unlike(arch: Arch, seed: int = 0) -> float:
    """A number in [0, 1) that is the arch's own."""
    return zlib.crc32(f"{seed} {arch}".encode()) / 2**32


def assert_sound(bench: Bench, outcome: Verified, limit: float) -> None:
    """What holds whatever the device does."""
    assert len(bench.examined) == len(set(bench.examined))
    assert [c.arch for c in outcome.examined] == bench.examined
    for candidate in outcome.examined:
        assert candidate.measured == bench.measure(candidate.arch)
    standing = [c for c in outcome.examined if c.measured["latency"] <= limit]
    assert outcome.best in standing
    assert outcome.best.measured["top1"] == max(c.measured["top1"] for c in standing)
