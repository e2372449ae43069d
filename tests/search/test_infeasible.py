"""Limits that nothing meets: what can be reached, and the nearest network."""

import pytest

from ofa_deploy.errors import InfeasibleError
from ofa_deploy.pareto import Candidate
from ofa_deploy.predict import LatencyModel
from ofa_deploy.search import Problem, search
from ofa_deploy.space import Population, SearchSpace
from ofa_deploy.terminal import metric, span
from tests.search.made_up import Accuracy, UncertainAccuracy, latency_of


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
    noted = " with its error" if margin else ""
    assert f"; top1 was seen from {seen}{noted}; nearest: top1 " in str(caught.value)
    assert ("% without its error)" in str(caught.value)) == bool(margin)


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
