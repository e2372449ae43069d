"""Certificates against the answer that looking at every network gives."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.pareto import Candidate
from ofa_deploy.predict import LatencyModel
from ofa_deploy.search import Certificate, certificate, certify, search
from ofa_deploy.space import Population, SearchSpace

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Top-1 in which pairs of genes matter: no sum over genes."""

    space: SearchSpace

    def predict(self, archs: Population) -> Floats:
        awake = (archs + 1).astype(float)
        n = archs.shape[1]
        weights = np.random.default_rng(0).uniform(0.2, 2, n)
        pairs = np.random.default_rng(1).uniform(-0.15, 0.2, (n, n))
        return 30 + awake @ weights + np.einsum("ni,ij,nj->n", awake, pairs, awake)


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("_OFFSPRING", 60), ("_GENERATIONS", 10), ("_CLIMBS", 3)):
        monkeypatch.setattr(certificate, name, number)


@pytest.fixture(scope="module")
def everyone(tiny_space: SearchSpace) -> Population:
    rows = np.array(list(product(*(range(len(g.choices)) for g in tiny_space.genes))), np.int8)
    return np.unique(tiny_space.mask_inactive(rows), axis=0)


@pytest.fixture(scope="module")
def additive(tiny_space: SearchSpace) -> AdditiveModel:
    """Top-1 that is a sum over genes."""
    rng = np.random.default_rng(4)
    tables = [
        ((column,), np.r_[0.0, np.sort(rng.uniform(0, 3, len(gene.choices)))])
        for column, gene in enumerate(tiny_space.genes)
    ]
    return AdditiveModel(tiny_space, tables, offset=40.0)


@pytest.fixture(scope="module")
def latency(tiny_space: SearchSpace) -> LatencyModel:
    blocks = AdditiveModel.from_blocks(tiny_space, lambda block: 1e-4 * block.macs**0.7)
    model = LatencyModel(tiny_space, blocks.tables, offset=0.2)
    model.margin = 0.1
    return model


def budget(latency: LatencyModel) -> tuple[float, str]:
    limit = round(1.1 * sum(latency.bounds()) / 2, 6)
    return limit, f"latency <= {limit} ms"


def test_an_optimal_answer_is_proven(
    tiny_space: SearchSpace, everyone: Population, additive: AdditiveModel, latency: LatencyModel
) -> None:
    limit, text = budget(latency)
    asked = {"accuracy": additive, "latency": latency, "constraints": [text]}
    answer = search(tiny_space, **asked).best("top1")
    fits = everyone[1.1 * latency.predict(everyone) <= limit]
    truth = float(additive.predict(fits).max())
    found = certify(tiny_space, answer, **asked)
    assert found.top1 == pytest.approx(truth)
    assert found.locally_optimal and found.best_neighbour <= truth + 1e-9
    assert found.long_run == pytest.approx(truth)
    assert found.optimum is not None and found.unknown == ""
    assert found.optimum.value - 1e-9 <= truth <= found.optimum.bound + 1e-9
    lines = str(found).splitlines()
    assert lines[0] == (
        f"of {found.neighbours} feasible networks one or two genes away, better: none is"
    )
    assert lines[1].startswith("an independent run of 600 offspring and 3 climbs: ")
    assert lines[1].endswith("(+0.000 points)")
    assert lines[2].startswith("exact optimum: between ")


def test_an_answer_that_can_be_bettered_is_told_by_how_much(
    tiny_space: SearchSpace, everyone: Population, additive: AdditiveModel, latency: LatencyModel
) -> None:
    limit, text = budget(latency)
    found = certify(
        tiny_space,
        Candidate(tiny_space.smallest),
        accuracy=additive,
        latency=latency,
        constraints=[text],
    )
    row = tiny_space.encode([tiny_space.smallest])[0]
    near = neighbours_by_hand(tiny_space, row)
    near = near[1.1 * latency.predict(near) <= limit]
    assert 0 < found.neighbours == len(near), "the answer itself is none of them"
    assert found.best_neighbour == pytest.approx(additive.predict(near).max())
    assert not found.locally_optimal
    assert f"better: one is: {found.best_neighbour:.3f} %" in str(found)
    assert found.long_run > found.top1
    assert found.optimum is not None
    below = found.optimum.bound - found.top1
    assert f"the answer is at most {below:.3f} points below" in str(found)


def neighbours_by_hand(space: SearchSpace, row: npt.NDArray[np.int8]) -> Population:
    middle = [(len(gene.choices) - 1) // 2 for gene in space.genes]
    awake = np.where(row < 0, middle, row).astype(np.int8)
    changes = [(c, i) for c, gene in enumerate(space.genes) for i in range(len(gene.choices))]
    rows = []
    for first, second in product(changes, changes):
        other = awake.copy()
        other[first[0]], other[second[0]] = first[1], second[1]
        rows.append(other)
    found = np.unique(space.mask_inactive(np.array(rows)), axis=0)
    return found[(found != row).any(axis=1)]


@pytest.mark.parametrize(
    ("constraints", "why"),
    [
        ((), "it needs one limit, here are 0"),
        (("latency <= 2 ms", "macs <= 1G"), "it needs one limit, here are 2"),
        (("latency >= 0.1 ms",), "latency >= 0.1 ms is a lower limit"),
        (("peak_memory <= 1 MiB",), "peak_memory is not a sum over blocks"),
        (("kernel <= 5", "latency <= 2 ms"), ""),
    ],
)
def test_the_reason_why_no_optimum_is_known_is_the_real_one(
    tiny_space: SearchSpace,
    additive: AdditiveModel,
    latency: LatencyModel,
    constraints: tuple[str, ...],
    why: str,
) -> None:
    asked = {"accuracy": additive, "latency": latency, "constraints": constraints}
    found = certify(tiny_space, search(tiny_space, **asked, generations=1).best(), **asked)
    assert (found.unknown, found.optimum is None) == (why, bool(why))
    if why:
        assert str(found).endswith(f"exact optimum: not known, since {why}")


def test_accuracy_that_is_no_sum_has_no_exact_optimum(
    tiny_space: SearchSpace, latency: LatencyModel
) -> None:
    accuracy = Pairs(tiny_space)
    asked = {"accuracy": accuracy, "latency": latency, "constraints": [budget(latency)[1]]}
    found = certify(tiny_space, search(tiny_space, **asked, generations=1).best(), **asked)
    assert found.optimum is None
    assert "exact optimum: not known, since accuracy is not a sum over genes" in str(found)


def test_grid_that_is_too_coarse_is_said_to_be(
    tiny_space: SearchSpace,
    additive: AdditiveModel,
    latency: LatencyModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certificate, "best_within", lambda *asked: None)
    asked = {"accuracy": additive, "latency": latency, "constraints": [budget(latency)[1]]}
    found = certify(tiny_space, search(tiny_space, **asked, generations=1).best(), **asked)
    assert found.unknown == "the grid of costs is too coarse for so low a limit"


def test_the_long_run_is_another_one(
    tiny_space: SearchSpace, latency: LatencyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another seed, and as long as the text says."""
    heard: list[dict[str, object]] = []
    find = certificate.search

    def listening(space: SearchSpace, **options: object) -> object:
        heard.append(options)
        return find(space, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(certificate, "search", listening)
    asked = {"accuracy": Pairs(tiny_space), "latency": latency}
    answer = search(tiny_space, **asked, seed=5, generations=1).best()
    found: Certificate = certify(tiny_space, answer, seed=5, **asked)
    (long,) = heard
    assert long["seed"] != 5
    assert (long["population"], long["generations"], long["climbs"]) == (60, 10, 3)
    assert found.long_run >= answer.predicted["top1"] - 1
