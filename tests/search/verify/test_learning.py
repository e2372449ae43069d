"""Models that learn from what was measured, and when an answer stands."""

from collections.abc import Mapping, Sequence

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.search import Learner, Metric, search_verified, verify
from ofa_deploy.space import Arch, SearchSpace
from tests.search.verify.bench import Accuracy, Bench, assert_sound, middle, verified


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
