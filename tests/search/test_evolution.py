"""The search against the answer that looking at every network gives."""

import numpy as np
import pytest

from ofa_deploy.cost import params_model
from ofa_deploy.graph.builder import weight_shapes
from ofa_deploy.pareto import ParetoFront
from ofa_deploy.predict import LatencyModel
from ofa_deploy.search import search
from ofa_deploy.space import Arch, Population, SearchSpace
from tests.search.made_up import Accuracy, Floats, budgets, latency_of


def front_by_hand(top1: Floats, ms: Floats) -> set[tuple[float, float]]:
    """From fast to slow, what is more accurate than everything faster."""
    found: set[tuple[float, float]] = set()
    best = -np.inf
    for i in np.lexsort((-top1, ms)):
        if top1[i] > best:
            best = top1[i]
            found.add((float(ms[i]), float(top1[i])))
    return found


def pairs(front: ParetoFront) -> set[tuple[float, float]]:
    return {(c.predicted["latency"], c.predicted["top1"]) for c in front}


# -- right ----------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", range(4))
def test_best_is_the_optimum(
    tiny_space: SearchSpace,
    everyone: Population,
    accuracy: Accuracy,
    latency: LatencyModel,
    budget: int,
) -> None:
    limit = budgets(latency)[budget]
    front = search(
        tiny_space,
        accuracy=accuracy,
        latency=latency,
        constraints=[f"latency <= {limit:.6f} ms"],
        generations=20,
    )
    fits = everyone[latency.predict(everyone) <= round(limit, 6)]
    assert 0 < len(fits) < len(everyone)
    best = front.best("top1")
    assert best.predicted["top1"] == accuracy.predict(fits).max()
    (row,) = fits[accuracy.predict(fits) == accuracy.predict(fits).max()]
    assert best.arch == tiny_space.decode(row[None])[0]


def test_front_is_the_whole_front(
    tiny_space: SearchSpace, everyone: Population, accuracy: Accuracy, latency: LatencyModel
) -> None:
    front = search(tiny_space, accuracy=accuracy, latency=latency)
    expected = front_by_hand(accuracy.predict(everyone), latency.predict(everyone))
    assert len(expected) > 20
    assert pairs(front) == expected
    assert list(front) == sorted(front, key=lambda c: c.predicted["latency"])


def test_front_under_a_budget_is_that_of_what_fits(
    tiny_space: SearchSpace, everyone: Population, accuracy: Accuracy, latency: LatencyModel
) -> None:
    limit = round(budgets(latency)[2], 6)
    front = search(
        tiny_space, accuracy=accuracy, latency=latency, constraints=[f"latency <= {limit} ms"]
    )
    fits = everyone[latency.predict(everyone) <= limit]
    assert pairs(front) == front_by_hand(accuracy.predict(fits), latency.predict(fits))


def test_three_objectives(
    tiny_space: SearchSpace, everyone: Population, accuracy: Accuracy, latency: LatencyModel
) -> None:
    goals = {"top1": "max", "latency": "min", "params": "min"}
    front = search(tiny_space, accuracy=accuracy, latency=latency, objectives=goals)
    assert dict(front.objectives) == goals
    everything = np.stack(
        [
            -accuracy.predict(everyone),
            latency.predict(everyone),
            params_model(tiny_space).predict(everyone),
        ],
        axis=1,
    )
    undominated = {
        tuple(each)
        for each in everything
        if not ((everything <= each).all(1) & (everything < each).any(1)).any()
    }
    found = set(map(tuple, front.values() * [-1, 1, 1]))
    assert len(found) == len(front) > 100
    assert len(found & undominated) > 0.98 * max(len(found), len(undominated))


def test_polish_finds_what_few_generations_miss(
    tiny_space: SearchSpace, everyone: Population, accuracy: Accuracy, latency: LatencyModel
) -> None:
    limit = round(budgets(latency)[2], 6)
    fits = everyone[latency.predict(everyone) <= limit]
    front = search(
        tiny_space,
        accuracy=accuracy,
        latency=latency,
        constraints=[f"latency <= {limit} ms"],
        population=20,
        generations=2,
    )
    rank = int((accuracy.predict(fits) > front.best("top1").predicted["top1"]).sum())
    assert rank < 0.002 * len(fits)


def test_budget_that_only_the_smallest_meets(tiny_space: SearchSpace, accuracy: Accuracy) -> None:
    smallest = tiny_space.cost(tiny_space.smallest).macs
    front = search(tiny_space, accuracy=accuracy, constraints=[f"macs <= {smallest}"])
    assert [candidate.arch for candidate in front] == [tiny_space.smallest]


def params_of(arch: Arch, space: SearchSpace) -> int:
    """Weights and biases of the exported graph."""
    shapes = [shape for block in space.lower(arch) for shape in weight_shapes(block).values()]
    return sum(int(np.prod(shape)) for shape in shapes)


def test_candidates_carry_every_metric(
    tiny_space: SearchSpace, accuracy: Accuracy, latency: LatencyModel
) -> None:
    judged = latency_of(tiny_space, margin=0.1)
    constraint = "latency <= 1.2 ms"
    front = search(
        tiny_space, accuracy=accuracy, latency=judged, constraints=[constraint], generations=3
    )
    for candidate in front:
        cost = tiny_space.cost(candidate.arch)
        row = tiny_space.encode([candidate.arch])
        assert candidate.predicted == {
            "top1": accuracy.predict(row)[0],
            "latency": pytest.approx(latency.predict(row)[0]),
            "macs": cost.macs,
            "params": cost.params,
            "peak_memory": cost.peak_memory,
            "model_size": 4 * params_of(candidate.arch, tiny_space),
        }
        assert candidate.intervals["latency"] == pytest.approx(
            (0.9 * candidate.predicted["latency"], 1.1 * candidate.predicted["latency"])
        )
        assert (candidate.measured, candidate.budget) == ({}, constraint)


# -- repeatable -----------------------------------------------------------------------------


def test_same_seed_gives_the_same_answer(
    tiny_space: SearchSpace, accuracy: Accuracy, latency: LatencyModel
) -> None:
    def found(seed: int) -> ParetoFront:
        return search(
            tiny_space,
            accuracy=accuracy,
            latency=latency,
            seed=seed,
            population=12,
            generations=3,
        )

    np.random.seed(1)
    before = np.random.get_state()[1]
    assert found(5) == found(5)
    assert np.array_equal(np.random.get_state()[1], before)
    assert len({tuple(c.arch for c in found(seed)) for seed in range(5)}) > 1
