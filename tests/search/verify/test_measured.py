"""Limits on what is not measured are refused, and those of several devices hold on all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.errors import InfeasibleError, InputError
from ofa_deploy.search import Verified, search_verified, verify
from ofa_deploy.space import Arch
from tests.search.verify.bench import Bench, middle

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
