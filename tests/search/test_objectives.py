"""What a search is asked for: objectives and devices by name, and wrong ones refused."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from ofa_deploy.errors import InputError, MismatchError, UnknownNameError
from ofa_deploy.pareto import Candidate
from ofa_deploy.predict import LatencyModel
from ofa_deploy.search import Problem, search
from ofa_deploy.space import Arch, Population, SearchSpace
from tests.search.made_up import Accuracy, latency_of


def test_latency_by_device(
    tiny_space: SearchSpace, everyone: Population, accuracy: Accuracy
) -> None:
    models = {"phone": latency_of(tiny_space), "board": latency_of(tiny_space, power=0.9)}
    ms = {device: model.predict(everyone) for device, model in models.items()}
    limits = {device: round(float(np.quantile(values, 0.5)), 6) for device, values in ms.items()}
    front = search(
        tiny_space,
        accuracy=accuracy,
        latency=models,
        constraints=[f"latency[{device}] <= {limit} ms" for device, limit in limits.items()],
    )
    fits = np.logical_and.reduce([ms[device] <= limits[device] for device in models])
    assert front.best("top1").predicted["top1"] == accuracy.predict(everyone[fits]).max()
    assert dict(front.objectives) == {"top1": "max", "latency[phone]": "min"}
    assert {"latency[phone]", "latency[board]"} <= front[0].predicted.keys()
    assert "latency" not in front[0].predicted


def test_objective_of_no_named_device_is_one_of_each(
    tiny_space: SearchSpace, accuracy: Accuracy
) -> None:
    models = {"phone": latency_of(tiny_space), "board": latency_of(tiny_space, power=0.9)}
    named = {"top1": "max", "latency[phone]": "min", "latency[board]": "min"}
    found, expected = (
        search(
            tiny_space,
            accuracy=accuracy,
            latency=models,
            objectives=goals,
            population=20,
            climbs=0,
        )
        for goals in ({"top1": "max", "latency": "min"}, named)
    )
    assert dict(found.objectives) == named
    assert found == expected
    with pytest.raises(InputError, match=r"latency\[phone\] max contradicts latency\[phone\] min"):
        search(
            tiny_space,
            accuracy=accuracy,
            latency=models,
            objectives={"top1": "max", "latency": "min", "latency[phone]": "max"},
        )


def test_objectives_without_latency(tiny_space: SearchSpace, accuracy: Accuracy) -> None:
    for latency in (None, {}):
        front = search(tiny_space, accuracy=accuracy, latency=latency, generations=1)
        assert dict(front.objectives) == {"top1": "max", "macs": "min"}


@pytest.mark.parametrize(
    ("with_latency", "constraint", "hint"),
    [
        (None, "latency <= 8 ms", "known: macs, model_size, params, peak_memory, top1"),
        ("one", "latency[phone] <= 8 ms", "did you mean latency?"),
        ("named", "latency.p99 <= 8 ms", "did you mean latency[phone]"),
        ("named", "latency[phon] <= 8 ms", "did you mean latency[phone]"),
    ],
)
def test_constraint_without_a_model(
    tiny_space: SearchSpace,
    accuracy: Accuracy,
    latency: LatencyModel,
    with_latency: str | None,
    constraint: str,
    hint: str,
) -> None:
    given: LatencyModel | Mapping[str, LatencyModel] | None
    given = {None: None, "one": latency, "named": {"phone": latency}}[with_latency]
    with pytest.raises(UnknownNameError, match="unknown metric 'latency") as caught:
        search(tiny_space, accuracy=accuracy, latency=given, constraints=[constraint])
    assert hint in str(caught.value)


def test_objective_without_a_model(tiny_space: SearchSpace, accuracy: Accuracy) -> None:
    with pytest.raises(UnknownNameError, match="unknown metric 'energy'"):
        search(tiny_space, accuracy=accuracy, objectives={"top1": "max", "energy": "min"})


def test_objectives_must_hold_top1(tiny_space: SearchSpace, accuracy: Accuracy) -> None:
    with pytest.raises(InputError, match="expected top1 among the objectives, found macs"):
        search(tiny_space, accuracy=accuracy, objectives={"macs": "min"})


@pytest.mark.parametrize("goal", ["maximise", "MAX", "", "minimise"])
def test_goals_are_max_or_min(tiny_space: SearchSpace, accuracy: Accuracy, goal: str) -> None:
    with pytest.raises(InputError):
        search(tiny_space, accuracy=accuracy, objectives={"top1": goal, "macs": "min"})


@pytest.mark.parametrize(("population", "generations"), [(3, 10), (0, 10), (50, 0)])
def test_sizes_are_checked(
    tiny_space: SearchSpace, accuracy: Accuracy, population: int, generations: int
) -> None:
    with pytest.raises(
        InputError, match="population of at least 4, 1 generation, and no negative climbs"
    ):
        search(tiny_space, accuracy=accuracy, population=population, generations=generations)


@pytest.mark.parametrize("which", ["accuracy", "latency", "named latency"])
def test_model_of_another_space(tiny_space: SearchSpace, which: str) -> None:
    other = replace(tiny_space, name="other", resolutions=(12, 32))
    accuracy: Callable[[SearchSpace], Accuracy] = Accuracy
    latency = latency_of(other if "latency" in which else tiny_space)
    with pytest.raises(MismatchError, match="model is for space other, not tiny"):
        search(
            tiny_space,
            accuracy=accuracy(other if which == "accuracy" else tiny_space),
            latency={"phone": latency} if which == "named latency" else latency,
        )


def test_violation_is_relative_and_summed(
    tiny_space: SearchSpace, accuracy: Accuracy, latency: LatencyModel
) -> None:
    row = tiny_space.encode([tiny_space.largest])
    macs, params = (tiny_space.cost(tiny_space.largest).macs, 1e9)
    problem = Problem.build(
        tiny_space,
        accuracy=accuracy,
        latency=latency,
        constraints=[f"macs <= {macs / 2}", f"params >= {params}", f"macs <= {2 * macs}"],
    )
    short = 1 - tiny_space.cost(tiny_space.largest).params / params
    assert problem.violation(row) == pytest.approx([1 + short])
    assert problem.costs(row) == pytest.approx(
        np.array([[-accuracy.predict(row)[0], latency.predict(row)[0]]])
    )


def test_problem_candidates_are_in_the_rows_order(
    tiny_space: SearchSpace, accuracy: Accuracy, everyone: Population
) -> None:
    problem = Problem.build(tiny_space, accuracy=accuracy, latency=None, constraints=[])
    rows = everyone[[7, 3, 99]]
    found: list[Candidate] = problem.candidates(rows)
    archs: list[Arch] = tiny_space.decode(rows)
    assert [candidate.arch for candidate in found] == archs
    assert [c.predicted["top1"] for c in found] == accuracy.predict(rows).tolist()
