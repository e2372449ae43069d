"""The closed loop with an examiner whose truth is known: what is returned was measured to fit."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.errors import ConstraintError, InfeasibleError, InputError
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.search import (
    Learner,
    Metric,
    Verified,
    evolution,
    search,
    search_verified,
    verify,
)
from ofa_deploy.space import Arch, Population, SearchSpace
from ofa_deploy.terminal import span

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accuracy:
    space: SearchSpace

    def predict(self, archs: Population) -> Floats:
        weights = np.random.default_rng(0).uniform(0.2, 2, archs.shape[1])
        return 30 + (archs + 1) @ weights


@pytest.fixture(autouse=True)
def _short_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    short = partial(evolution.search, population=60, generations=6)
    monkeypatch.setattr(verify, "search", short)


@pytest.fixture(scope="module")
def accuracy(tiny_space: SearchSpace) -> Accuracy:
    return Accuracy(tiny_space)


@pytest.fixture(scope="module")
def latency(tiny_space: SearchSpace) -> AdditiveModel:
    return AdditiveModel.from_blocks(
        tiny_space, lambda block: 1e-4 * block.macs**0.7 + 0.01 * block.kernel
    )


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


@pytest.fixture
def bench(accuracy: Accuracy, latency: AdditiveModel) -> Bench:
    return Bench(accuracy, latency)


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


def test_true_predictions_stand_at_once(bench: Bench, latency: AdditiveModel) -> None:
    limit = middle(latency)
    budget = f"latency <= {limit} ms"
    outcome = verified(bench, [budget], seed=3)
    front = verify.search(
        bench.accuracy.space,
        accuracy=bench.accuracy,
        latency=latency,
        constraints=[budget],
        seed=3,
    )
    by_top1 = sorted(front, key=lambda c: c.predicted["top1"], reverse=True)
    assert bench.rounds == [[c.arch for c in by_top1[:4]]]
    assert outcome.best.arch == front.best("top1").arch
    assert outcome.best.predicted == front.best("top1").predicted
    assert outcome.best.budget == budget
    assert_sound(bench, outcome, limit)


def test_slower_device_tightens_the_search(bench: Bench, latency: AdditiveModel) -> None:
    limit = middle(latency)
    bench.factor = lambda arch: 1.3
    outcome = verified(bench, [f"latency <= {limit} ms"])
    assert len(bench.rounds) == 2
    first = [bench.measure(arch)["latency"] for arch in bench.rounds[0]]
    assert min(first) > limit
    second = [bench.measure(arch)["latency"] for arch in bench.rounds[1]]
    assert max(second) <= limit
    # Tightened by as much as was missed, not more: the answer still uses most of the budget.
    assert outcome.best.measured["latency"] > 0.85 * limit
    assert outcome.best.budget == f"latency <= {limit} ms"
    assert_sound(bench, outcome, limit)


def test_best_is_the_most_accurate_measured_not_predicted(
    bench: Bench, latency: AdditiveModel
) -> None:
    limit = middle(latency)
    bench.loss = lambda arch: 10 if arch == bench.rounds[0][0] else unlike(arch)
    outcome = verified(bench, [f"latency <= {limit} ms"], candidates=6)
    assert len(bench.examined) == 6
    assert outcome.best.arch != bench.rounds[0][0]
    assert_sound(bench, outcome, limit)


def test_of_equally_accurate_networks_the_fastest_is_best(tiny_space: SearchSpace) -> None:
    archs = tiny_space.decode(tiny_space.sample(np.random.default_rng(0), 3))
    seen = [
        Candidate(arch, {}, {}, {"top1": top1, "latency": ms})
        for arch, top1, ms in zip(archs, (70.0, 80.0, 80.0), (1.0, 3.0, 2.0), strict=True)
    ]
    assert verify._best(seen, ()) is seen[2]


def test_faster_networks_are_never_tightened_away(bench: Bench, latency: AdditiveModel) -> None:
    bench.factor = lambda arch: 0.5
    outcome = verified(bench, [f"latency <= {middle(latency)} ms"])
    assert len(bench.rounds) == 1
    assert outcome.best.arch == bench.rounds[0][0]


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.floats(0.9, 1.5), st.floats(0, 0.5))
def test_over_budget_is_never_returned(
    accuracy: Accuracy, latency: AdditiveModel, seed: int, slow: float, spread: float
) -> None:
    bench = Bench(
        accuracy,
        latency,
        factor=lambda arch: slow + spread * unlike(arch, seed),
        loss=lambda arch: 5 * unlike(arch, seed + 1),
    )
    limit = middle(latency)
    try:
        outcome = verified(bench, [f"latency <= {limit} ms"], seed=seed)
    except InfeasibleError:
        assert min(bench.measure(arch)["latency"] for arch in bench.examined) > limit
        assert len(bench.examined) == len(set(bench.examined))
    else:
        assert_sound(bench, outcome, limit)


def test_all_fail_reports_what_was_measured(bench: Bench, latency: AdditiveModel) -> None:
    limit = middle(latency)
    bench.factor = lambda arch: 1.05 * limit / bench.latency.predict([arch])[0] + 0.1 * unlike(arch)
    with pytest.raises(InfeasibleError) as caught:
        verified(bench, [f"latency <= {limit} ms"], rounds=3)
    assert_nothing_stood(caught.value, bench, f"latency <= {limit} ms")


def test_device_too_slow_for_the_budget_reports_what_was_measured(
    bench: Bench, latency: AdditiveModel
) -> None:
    """The tightened limit is below what is predicted to be reachable: not the asked one's fault."""
    limit = middle(latency)
    bench.factor = lambda arch: 50.0
    with pytest.raises(InfeasibleError) as caught:
        verified(bench, [f"latency <= {limit} ms"])
    assert_nothing_stood(caught.value, bench, f"latency <= {limit} ms")


def assert_nothing_stood(error: InfeasibleError, bench: Bench, asked: str) -> None:
    ms = [bench.measure(arch)["latency"] for arch in bench.examined]
    assert len(bench.examined) == len(set(bench.examined)) > 0
    assert error.reachable == {"latency": pytest.approx((min(ms), max(ms)))}
    assert str(error) == (
        f"none of {len(ms)} candidates was measured to meet {asked}; "
        f"measured: latency from {span('latency', (min(ms), max(ms)))}; relax the budget"
    )


def test_unreachable_prediction_fails_before_anything_is_examined(
    bench: Bench, latency: AdditiveModel
) -> None:
    least, greatest = latency.bounds()
    with pytest.raises(InfeasibleError) as caught:
        verified(bench, [f"latency <= {0.9 * least:.6f} ms"])
    assert caught.value.reachable == {"latency": (least, greatest)}
    assert bench.examined == []


def test_rounds_and_candidates_are_limits(bench: Bench, latency: AdditiveModel) -> None:
    limit = middle(latency)
    bench.factor = lambda arch: 1.001 * limit / bench.latency.predict([arch])[0]
    with pytest.raises(InfeasibleError):
        verified(bench, [f"latency <= {limit} ms"], rounds=3, candidates=2)
    assert [len(archs) for archs in bench.rounds] == [2, 2, 2]


def test_front_that_is_used_up_ends_the_loop(
    bench: Bench, tiny_space: SearchSpace, latency: AdditiveModel
) -> None:
    """Only the smallest network fits; it is examined once and found too slow."""
    least = latency.predict([tiny_space.smallest])[0]
    bench.factor = lambda arch: 1.5
    macs = tiny_space.cost(tiny_space.smallest).macs
    with pytest.raises(InfeasibleError) as caught:
        verified(bench, [f"latency <= {1.4 * least:.6f} ms", f"macs <= {macs}"])
    assert bench.examined == [tiny_space.smallest]
    assert caught.value.reachable["latency"] == pytest.approx((1.5 * least, 1.5 * least))


def test_constraint_on_measured_accuracy(bench: Bench, latency: AdditiveModel) -> None:
    top1 = bench.accuracy.predict(bench.accuracy.space.encode([bench.accuracy.space.largest]))[0]
    bench.loss = lambda arch: 3.0
    wanted = round(0.85 * top1, 2)
    outcome = verified(bench, [f"top1 >= {wanted} %", f"latency <= {latency.bounds()[1]:.6f} ms"])
    assert outcome.best.measured["top1"] >= wanted


def test_measured_accuracy_of_zero_is_a_miss(bench: Bench, latency: AdditiveModel) -> None:
    bench.loss = lambda arch: bench.accuracy.predict(bench.accuracy.space.encode([arch]))[0]
    with pytest.raises(InfeasibleError) as caught:
        verified(bench, ["top1 >= 40 %", f"latency <= {middle(latency)} ms"])
    assert caught.value.reachable["top1"] == (0.0, 0.0)


def test_metrics_that_are_not_measured_are_the_predicted(
    bench: Bench, tiny_space: SearchSpace, latency: AdditiveModel
) -> None:
    limit = middle(latency)
    outcome = verified(bench, [f"latency <= {limit} ms", "macs <= 150k"])
    assert tiny_space.cost(outcome.best.arch).macs <= 150_000
    assert_sound(bench, outcome, limit)


def test_rounds_are_reported_as_they_end(bench: Bench, latency: AdditiveModel) -> None:
    limit = middle(latency)
    bench.factor = lambda arch: 1.3
    heard: list[tuple[int, list[Arch], int]] = []

    def on_round(number: int, examined: Sequence[Candidate]) -> None:
        assert all(candidate.measured for candidate in examined)
        heard.append((number, [c.arch for c in examined], len(bench.rounds)))

    verified(bench, [f"latency <= {limit} ms"], on_round=on_round)
    first, second = bench.rounds
    assert heard == [(0, first, 1), (1, first + second, 2)]


# -- models that learn ----------------------------------------------------------------------


def slower(model: AdditiveModel, factor: float) -> AdditiveModel:
    """The model of a device that takes so many times as long."""
    tables = [(columns, factor * table) for columns, table in model.tables]
    return AdditiveModel(model.space, tables, offset=factor * model.offset)


def learning(accuracy: Accuracy, latency: Metric) -> Learner:
    """What is learned from any measurement: the truth."""
    return lambda examined: (accuracy, latency, {})


def promised(bench: Bench, latency: Metric, budget: str) -> ParetoFront:
    return verify.search(
        bench.accuracy.space, accuracy=bench.accuracy, latency=latency, constraints=[budget]
    )


def test_answer_stands_under_the_limit_that_was_asked_not_a_tightened_one(
    bench: Bench, latency: AdditiveModel
) -> None:
    """Nothing fits at first, so the limit is tightened; then the model has learned as much."""
    limit = middle(latency)
    budget = f"latency <= {limit} ms"
    bench.factor = lambda arch: 1.3
    truth = slower(latency, 1.3)
    outcome = verified(bench, [budget], learn=learning(bench.accuracy, truth))
    least = min(bench.measure(arch)["latency"] for arch in bench.rounds[0])
    assert least > limit
    tightened = limit / (1.01 * least / limit)
    assert max(bench.measure(arch)["latency"] for arch in bench.rounds[1]) <= tightened
    assert outcome.stands
    assert outcome.best.measured["latency"] > tightened
    assert outcome.best.arch == promised(bench, truth, budget).best("top1").arch
    assert_sound(bench, outcome, limit)


def test_rounds_that_are_over_do_not_stand(bench: Bench, latency: AdditiveModel) -> None:
    bench.factor = lambda arch: 1.3
    learn = learning(bench.accuracy, slower(latency, 1.3))
    outcome = verified(bench, [f"latency <= {middle(latency)} ms"], learn=learn, rounds=2)
    assert not outcome.stands
    assert len(bench.rounds) == 2


def test_limit_that_was_tightened_too_far_is_tried_as_asked(
    bench: Bench, tiny_space: SearchSpace, latency: AdditiveModel
) -> None:
    """Few networks fit, and only the limit as it was asked lets them in."""
    bench.factor = lambda arch: 1.3
    truth = slower(latency, 1.3)
    limit = round(1.35 * float(latency.predict([tiny_space.smallest])[0]), 6)
    budget = f"latency <= {limit} ms"
    outcome = verified(bench, [budget], learn=learning(bench.accuracy, truth), candidates=1)
    overshoot = bench.measure(bench.rounds[0][0])["latency"] / limit
    assert limit / overshoot < truth.bounds()[0], "nothing is predicted to meet it"
    assert outcome.best.arch == promised(bench, truth, budget).best("top1").arch
    assert_sound(bench, outcome, limit)


def test_models_that_promise_nothing_more_let_the_answer_stand(
    bench: Bench, latency: AdditiveModel
) -> None:
    """What was learned puts every network out of reach, but one was measured to fit."""
    limit = middle(latency)
    learn = learning(bench.accuracy, slower(latency, 100))
    outcome = verified(bench, [f"latency <= {limit} ms"], learn=learn)
    assert outcome.stands
    assert len(bench.rounds) == 1
    assert_sound(bench, outcome, limit)


def test_other_metrics_learn_too(bench: Bench, latency: AdditiveModel) -> None:
    """The slowest runs take 1.5 times the usual, of which the model knows nothing at first."""
    limit = middle(latency)
    tail = slower(latency, 1.5)
    heard: list[int] = []

    def learn(examined: Sequence[Candidate]) -> tuple[Metric, Metric, Mapping[str, Metric]]:
        heard.append(len(examined))
        return bench.accuracy, latency, {"latency.p99": tail}

    def examine(archs: Sequence[Arch]) -> list[Mapping[str, float]]:
        return [{**found, "latency.p99": 1.5 * found["latency"]} for found in bench(archs)]

    outcome = search_verified(
        bench.accuracy.space,
        examine,
        accuracy=bench.accuracy,
        latency=latency,
        metrics={"latency.p99": latency},
        constraints=[f"latency.p99 <= {limit} ms"],
        learn=learn,
    )
    assert heard and outcome.stands
    assert outcome.best.measured["latency.p99"] <= limit
    best = verify.search(
        bench.accuracy.space,
        accuracy=bench.accuracy,
        latency=latency,
        metrics={"latency.p99": tail},
        constraints=[f"latency.p99 <= {limit} ms"],
    ).best("top1")
    assert outcome.best.arch == best.arch


# -- what is not measured -------------------------------------------------------------------


@dataclass(frozen=True)
class Declared:
    """An examiner that says what it measures."""

    bench: Bench
    metrics: tuple[str, ...]

    def __call__(self, archs: Sequence[Arch]) -> list[Mapping[str, float]]:
        return [{name: found[name] for name in self.metrics} for found in self.bench(archs)]


@pytest.mark.parametrize("declares", [True, False])
@pytest.mark.parametrize(
    ("metric", "unit"), [("latency.p90", "ms"), ("energy", "mJ"), ("latency", "ms")]
)
def test_limit_on_what_is_not_measured_is_refused(
    bench: Bench,
    latency: AdditiveModel,
    monkeypatch: pytest.MonkeyPatch,
    declares: bool,
    metric: str,
    unit: str,
) -> None:
    """A prediction proves nothing: known beforehand before the search, else once it is seen."""
    known = tuple(name for name in ("top1", "latency") if name != metric)
    declared = Declared(bench, known)
    if declares:
        monkeypatch.setattr(verify, "search", None)
    limit = f"{metric} <= {middle(latency)} {unit}"
    with pytest.raises(InputError) as caught:
        search_verified(
            bench.accuracy.space,
            declared if declares else lambda archs: declared(archs),
            accuracy=bench.accuracy,
            latency=latency,
            metrics={metric: latency},
            constraints=[limit, "macs <= 1G"],
        )
    assert str(caught.value) == (
        f"{metric} cannot be measured here, so {limit!r} cannot be proven (measured: "
        f"{', '.join(known)}); leave it out, or search without proving (--no-verify)"
    )
    assert len(bench.rounds) == (0 if declares else 1)


# -- several devices ------------------------------------------------------------------------


def test_limit_of_no_named_device_holds_on_all_as_measured(
    bench: Bench, latency: AdditiveModel
) -> None:
    limit = middle(latency)

    def examine(archs: Sequence[Arch]) -> list[Mapping[str, float]]:
        return [
            {
                "top1": found["top1"],
                "latency[phone]": found["latency"],
                "latency[board]": 1.3 * found["latency"],
            }
            for found in bench(archs)
        ]

    def outcome(constraint: str) -> Verified:
        return search_verified(
            bench.accuracy.space,
            examine,
            accuracy=bench.accuracy,
            latency={"phone": latency, "board": latency},
            constraints=[constraint],
        )

    found = outcome(f"latency <= {limit} ms")
    assert len(bench.rounds) == 2
    assert found.best.measured["latency[board]"] <= limit
    assert found.best.measured["latency[board]"] > 0.8 * limit
    assert found.best.budget == f"latency <= {limit} ms"
    bench.factor = lambda arch: 50.0
    with pytest.raises(InfeasibleError) as caught:
        outcome(f"latency <= {limit} ms")
    assert set(caught.value.reachable) == {"latency[phone]", "latency[board]"}
    assert f"was measured to meet latency <= {limit} ms; measured:" in str(caught.value)


def test_same_seed_gives_the_same_answer(accuracy: Accuracy, latency: AdditiveModel) -> None:
    def outcome() -> Verified:
        slow = Bench(accuracy, latency, factor=lambda arch: 1 + 0.5 * unlike(arch))
        return verified(slow, [f"latency <= {middle(latency)} ms"], seed=2)

    assert outcome() == outcome()


def test_bad_constraint_is_refused_before_anything_is_examined(bench: Bench) -> None:
    with pytest.raises(ConstraintError):
        verified(bench, ["latency < 8 ms"])
    assert bench.examined == []


def test_loop_uses_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The patch of this file's fixture is where the loop looks its search up."""
    monkeypatch.undo()
    assert verify.search is search
