"""What is found keeps to its limits, errors and all, and wastes nothing of them."""

import numpy as np
import pytest

from ofa_deploy.cost import macs_model, params_model, peak_memory_model
from ofa_deploy.errors import ConstraintError
from ofa_deploy.predict import LatencyModel
from ofa_deploy.search import Problem, parse_constraint, search
from ofa_deploy.search.climb import Price
from ofa_deploy.space import Population, SearchSpace
from tests.search.made_up import Accuracy, UncertainAccuracy, budgets, latency_of


def test_unfavourable_end_of_the_latency_keeps_the_limit(
    tiny_space: SearchSpace, everyone: Population, accuracy: Accuracy
) -> None:
    latency = latency_of(tiny_space, margin=0.25)
    limit = round(budgets(latency)[2], 6)
    front = search(
        tiny_space, accuracy=accuracy, latency=latency, constraints=[f"latency <= {limit} ms"]
    )
    fits = everyone[1.25 * latency.predict(everyone) <= limit]
    best = front.best("top1")
    assert best.predicted["top1"] == accuracy.predict(fits).max()
    assert max(candidate.intervals["latency"][1] for candidate in front) <= limit
    # The limit itself would have let a more accurate one in.
    assert (
        accuracy.predict(everyone[latency.predict(everyone) <= limit]).max()
        > (best.predicted["top1"])
    )


def test_unfavourable_end_of_the_accuracy_keeps_the_limit(
    tiny_space: SearchSpace, everyone: Population, latency: LatencyModel
) -> None:
    accuracy = UncertainAccuracy(tiny_space, margin=2.0)
    limit = round(float(np.quantile(accuracy.predict(everyone), 0.7)), 3)
    front = search(
        tiny_space, accuracy=accuracy, latency=latency, constraints=[f"top1 >= {limit} %"]
    )
    fits = everyone[accuracy.predict(everyone) - 2 >= limit]
    assert front.best("latency").predicted["latency"] == latency.predict(fits).min()
    assert min(candidate.intervals["top1"][0] for candidate in front) >= limit


def test_all_of_several_constraints_hold(
    tiny_space: SearchSpace, everyone: Population, accuracy: Accuracy, latency: LatencyModel
) -> None:
    costs = {
        "latency": latency.predict(everyone),
        "macs": macs_model(tiny_space).predict(everyone),
        "params": params_model(tiny_space).predict(everyone),
        "peak_memory": peak_memory_model(tiny_space).predict(everyone),
    }
    limits = {name: float(np.quantile(values, 0.6)) for name, values in costs.items()}
    limits["latency"] = round(limits["latency"], 6)
    units = {"latency": "ms", "peak_memory": "B"}
    front = search(
        tiny_space,
        accuracy=accuracy,
        latency=latency,
        constraints=[
            f"{name} <= {limit!r} {units.get(name, '')}" for name, limit in limits.items()
        ],
    )
    fits = np.logical_and.reduce([costs[name] <= limit for name, limit in limits.items()])
    assert 0 < fits.sum() < min((costs[name] <= limits[name]).sum() for name in limits)
    assert front.best("top1").predicted["top1"] == accuracy.predict(everyone[fits]).max()
    for candidate in front:
        assert all(candidate.predicted[name] <= limit for name, limit in limits.items())


def test_constraints_from_below_and_above(
    tiny_space: SearchSpace, accuracy: Accuracy, latency: LatencyModel
) -> None:
    constraints = ["macs >= 100k", parse_constraint("macs <= 120k")]
    front = search(tiny_space, accuracy=accuracy, latency=latency, constraints=constraints)
    assert all(100_000 <= candidate.predicted["macs"] <= 120_000 for candidate in front)
    assert front[0].budget == "macs >= 100k, macs <= 120k"


@pytest.mark.parametrize("order", [(1.0, 1.3), (1.3, 1.0)])
def test_the_least_of_two_limits_is_the_budget(
    tiny_space: SearchSpace, accuracy: Accuracy, latency: LatencyModel, order: tuple[float, ...]
) -> None:
    limits = [f"latency <= {limit} ms" for limit in order]
    problem = Problem.build(tiny_space, accuracy=accuracy, latency=latency, constraints=limits)
    assert latency.bounds()[0] < 1.0 < 1.3 < latency.bounds()[1]
    price = Price.of(problem)
    assert price is not None and price.limit == 1.0
    found, alone = (
        search(tiny_space, accuracy=accuracy, latency=latency, constraints=each, generations=1)
        for each in (limits, ["latency <= 1.0 ms"])
    )
    assert [c.arch for c in found] == [c.arch for c in alone]


def test_constraint_that_does_not_parse(tiny_space: SearchSpace, accuracy: Accuracy) -> None:
    with pytest.raises(ConstraintError):
        search(tiny_space, accuracy=accuracy, constraints=["macs < 3M"])
