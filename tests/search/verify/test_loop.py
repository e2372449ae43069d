"""The closed loop: what is returned was measured to fit."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.errors import ConstraintError, InfeasibleError
from ofa_deploy.pareto import Candidate
from ofa_deploy.search import Verified, search, verify
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.terminal import span
from tests.search.verify.bench import Accuracy, Bench, assert_sound, middle, unlike, verified


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
    """The patch of this folder's fixture is where the loop looks its search up."""
    monkeypatch.undo()
    assert verify.search is search
