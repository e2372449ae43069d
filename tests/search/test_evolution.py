"""The search against the answer that looking at every network gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from ofa_deploy.cost import AdditiveModel, macs_model, params_model, peak_memory_model
from ofa_deploy.errors import (
    ConstraintError,
    InfeasibleError,
    InputError,
    MismatchError,
    UnknownNameError,
)
from ofa_deploy.graph.builder import weight_shapes
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.predict import LatencyModel
from ofa_deploy.search import Problem, parse_constraint, search
from ofa_deploy.search.climb import Price
from ofa_deploy.space import Arch, Population, SearchSpace
from ofa_deploy.terminal import metric, span

Floats = npt.NDArray[np.float64]


@dataclass
class Accuracy:
    """Top-1 that grows with every gene, each by an amount of its own, and with pairs of genes.

    All amounts are multiples of 2⁻²⁰, so that sums are exact in any order.

    Attributes:
        margin: half-width of its interval; none when 0.
        rows: how many rows it was asked for.
    """

    space: SearchSpace
    margin: float = 0.0
    rows: int = field(default=0, compare=False)

    def predict(self, archs: Population) -> Floats:
        self.rows += len(archs)
        awake = (archs + 1).astype(float)
        n = archs.shape[1]
        weights = np.random.default_rng(0).integers(0.2 * 2**20, 2 * 2**20, n) / 2**20
        pairs = np.random.default_rng(1).integers(-0.15 * 2**20, 0.2 * 2**20, (n, n)) / 2**20
        return 30 + awake @ weights + np.einsum("ni,ij,nj->n", awake, pairs, awake)


class UncertainAccuracy(Accuracy):
    def interval(self, archs: Population) -> tuple[Floats, Floats]:
        return self.predict(archs) - self.margin, self.predict(archs) + self.margin


def latency_of(space: SearchSpace, *, margin: float = 0.0, power: float = 0.7) -> LatencyModel:
    """Milliseconds that grow slower than MACs, and with the kernel."""
    model = LatencyModel(
        space,
        AdditiveModel.from_blocks(
            space, lambda block: 1e-4 * block.macs**power + 0.01 * block.kernel
        ).tables,
        offset=0.2,
    )
    model.margin = margin
    return model


@pytest.fixture(scope="module")
def everyone(tiny_space: SearchSpace) -> Population:
    """All 5,712 networks."""
    rows = np.array(list(product(*(range(len(g.choices)) for g in tiny_space.genes))), np.int8)
    rows = np.unique(tiny_space.mask_inactive(rows), axis=0)
    assert len(rows) == tiny_space.num_archs == 5_712
    return rows


@pytest.fixture(scope="module")
def accuracy(tiny_space: SearchSpace) -> Accuracy:
    return Accuracy(tiny_space)


@pytest.fixture(scope="module")
def latency(tiny_space: SearchSpace) -> LatencyModel:
    return latency_of(tiny_space)


def budgets(latency: LatencyModel) -> list[float]:
    """Four limits from tight to loose."""
    least, greatest = latency.bounds()
    return [least + share * (greatest - least) for share in (0.02, 0.2, 0.5, 0.9)]


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


# -- constraints ----------------------------------------------------------------------------


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


# -- infeasible -----------------------------------------------------------------------------


def test_unreachable_latency_says_what_can_be_reached(
    tiny_space: SearchSpace, everyone: Population, latency: LatencyModel
) -> None:
    accuracy = Accuracy(tiny_space)
    ms = latency.predict(everyone)
    limit = 0.9 * ms.min()
    with pytest.raises(InfeasibleError) as caught:
        search(
            tiny_space,
            accuracy=accuracy,
            latency=latency,
            constraints=[f"latency <= {limit:.6f} ms", "macs <= 1G"],
        )
    assert caught.value.reachable == {
        "latency": pytest.approx((ms.min(), ms.max())),
        "macs": (
            tiny_space.cost(tiny_space.smallest).macs,
            tiny_space.cost(tiny_space.largest).macs,
        ),
    }
    message = str(caught.value)
    assert message.startswith(f"no network of space tiny meets latency <= {limit:.6f} ms, macs <=")
    assert f"latency reaches from {span('latency', (ms.min(), ms.max()))}; macs reaches" in message
    assert caught.value.exit_code == 3
    nearest = caught.value.nearest
    assert isinstance(nearest, Candidate)
    assert nearest.predicted["latency"] == pytest.approx(ms.min())
    assert f"nearest: latency {metric('latency', ms.min(), 4)}, macs" in message
    assert message.endswith(f"({nearest.arch})")


def test_unreachable_lower_limit(tiny_space: SearchSpace, accuracy: Accuracy) -> None:
    greatest = tiny_space.cost(tiny_space.largest).params
    with pytest.raises(InfeasibleError) as caught:
        search(tiny_space, accuracy=accuracy, constraints=[f"params >= {greatest + 1}"])
    assert caught.value.reachable["params"][1] == greatest


def test_constraints_that_exclude_each_other(
    tiny_space: SearchSpace, accuracy: Accuracy, latency: LatencyModel
) -> None:
    constraints = ["latency >= 1.1 ms", "latency <= 1.0 ms"]
    assert latency.bounds()[0] < 1.0 and latency.bounds()[1] > 1.1
    with pytest.raises(InfeasibleError) as caught:
        search(
            tiny_space,
            accuracy=accuracy,
            latency=latency,
            constraints=constraints,
            population=50,
            generations=5,
        )
    assert caught.value.reachable == {"latency": latency.bounds()}
    assert "seen" not in str(caught.value)


@pytest.mark.parametrize("margin", [0.0, 2.0])
def test_accuracy_without_bounds_is_searched_for_and_what_was_seen_told(
    tiny_space: SearchSpace, everyone: Population, latency: LatencyModel, margin: float
) -> None:
    accuracy = UncertainAccuracy(tiny_space, margin)
    with pytest.raises(InfeasibleError) as caught:
        search(
            tiny_space,
            accuracy=accuracy,
            latency=latency,
            constraints=["top1 >= 99", f"latency <= {latency.bounds()[0]:.6f} ms"],
            population=50,
            generations=5,
        )
    least, greatest = caught.value.reachable["top1"]
    assert caught.value.reachable["latency"] == pytest.approx(latency.bounds())
    true = accuracy.predict(everyone) - margin
    assert true.min() - 1e-9 <= least < greatest <= true.max() + 1e-9
    ends = tiny_space.encode([tiny_space.smallest, tiny_space.largest])
    smallest, largest = accuracy.predict(ends)
    assert least <= smallest - margin + 1e-9 and greatest >= largest - margin - 1e-9
    seen = span("top1", (least, greatest))
    assert f"; top1 was seen from {seen}; nearest: top1 " in str(caught.value)


def test_limit_within_the_margin_is_explained(tiny_space: SearchSpace, accuracy: Accuracy) -> None:
    """The range that is said to be reachable does not hold a limit that cannot be met."""
    latency = latency_of(tiny_space, margin=0.25)
    limit = round(1.1 * latency.bounds()[0], 6)
    with pytest.raises(InfeasibleError) as caught:
        search(
            tiny_space,
            accuracy=accuracy,
            latency=latency,
            constraints=[f"latency <= {limit} ms"],
            population=50,
            generations=5,
        )
    ends = caught.value.reachable["latency"]
    assert ends[0] > limit
    told, without = span("latency", ends), span("latency", latency.bounds())
    assert f"latency reaches from {told} with its error ({without} without)" in str(caught.value)


def test_what_is_out_of_reach_at_any_speed(tiny_space: SearchSpace, accuracy: Accuracy) -> None:
    latency = latency_of(tiny_space, margin=0.25)
    least, greatest = latency.bounds()
    macs = tiny_space.cost(tiny_space.smallest).macs

    def beyond(text: str, slack: float) -> bool:
        models = {"accuracy": accuracy, "latency": latency}
        return bool(
            Problem.build(tiny_space, **models, constraints=[text]).out_of_reach(slack)  # type: ignore[arg-type]
        )

    for slack in (1.0, 2.0):
        for inside in (False, True):
            off = 1.01 if inside else 0.99
            assert beyond(f"latency <= {0.75 * least / slack * off:.6f} ms", slack) is not inside
            assert beyond(f"latency >= {1.25 * greatest * slack / off:.6f} ms", slack) is not inside
        assert beyond(f"macs <= {macs - 1}", slack) and not beyond(f"macs <= {macs}", slack)
        assert not beyond("top1 >= 100 %", slack), "bounds that nobody knows refuse nothing"


# -- several devices, names -----------------------------------------------------------------


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
