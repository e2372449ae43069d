"""Accuracy model and tables brought together: resolutions, devices, percentiles."""

import numpy as np
import pytest

from ofa_deploy.errors import InputError, MismatchError, UnknownNameError
from ofa_deploy.predict import AccuracyModel, fit_accuracy, latency_model
from ofa_deploy.search import (
    Constraint,
    for_device,
    models_of,
    on_tables,
    parse_constraint,
    search,
)
from ofa_deploy.space import SearchSpace, get_space
from tests.search.measured import measured_table, on
from tests.tables import table_of

NANO = get_space("mbv3-nano-32")


@pytest.fixture(scope="module")
def accuracy() -> AccuracyModel:
    space = NANO.with_resolutions(24, 32, 40)
    archs = space.decode(space.sample(np.random.default_rng(0), 30))
    return fit_accuracy(space, archs, [40 + np.log(space.cost(a).macs) for a in archs])


def test_only_what_all_know_is_searched(accuracy: AccuracyModel) -> None:
    table = measured_table(NANO.with_resolutions(32, 40, 48))
    models = models_of(accuracy, [table])
    assert models.space.resolutions == (32, 40)
    assert models.dropped == (24, 48)
    front = search(models.space, accuracy=models.accuracy, latency=models.latency)
    archs = [c.arch for c in front]
    assert {arch.resolution for arch in archs} <= {32, 40}
    np.testing.assert_allclose(
        [c.predicted["top1"] for c in front], accuracy.predict(archs), rtol=1e-6
    )
    whole = latency_model(NANO.with_resolutions(32, 40, 48), table)
    np.testing.assert_allclose([c.predicted["latency"] for c in front], whole.predict(archs))


def test_spaces_without_a_common_resolution(accuracy: AccuracyModel) -> None:
    with pytest.raises(MismatchError, match="no resolution is known to all of: 24, 32, 40; 48"):
        models_of(accuracy, [measured_table(NANO.with_resolutions(48))])


@pytest.mark.parametrize(
    "space", [get_space("ofa-mbv3-w1.2").with_resolutions(160), NANO.with_classes(7)]
)
def test_other_spaces_are_refused(accuracy: AccuracyModel, space: SearchSpace) -> None:
    with pytest.raises(MismatchError, match="mbv3"):
        models_of(accuracy, [table_of(space, lambda block: 1.0)])


def test_one_table_a_device(accuracy: AccuracyModel) -> None:
    table = measured_table(NANO)
    with pytest.raises(InputError, match="found several of bench"):
        models_of(accuracy, [table, table])
    with pytest.raises(InputError, match="at least one latency table"):
        models_of(accuracy, [])


def test_one_network_for_all_devices(accuracy: AccuracyModel) -> None:
    tables = [measured_table(NANO, "a"), measured_table(NANO, "b", slow=3.0)]
    models = models_of(accuracy, tables)
    assert isinstance(models.latency, dict) and set(models.latency) == {"a", "b"}
    least, greatest = models.latency_on("b").bounds()
    limit = (least + greatest) / 2
    front = search(
        models.space,
        accuracy=models.accuracy,
        latency=models.latency,
        constraints=[f"latency <= {limit} ms"],
    )
    for candidate in front:
        assert candidate.predicted["latency[b]"] <= limit
        assert candidate.predicted["latency[a]"] <= limit
    tighter = search(
        models.space,
        accuracy=models.accuracy,
        latency=models.latency,
        constraints=[f"latency[a] <= {limit / 6} ms", f"latency[b] <= {limit} ms"],
    )
    assert max(c.predicted["latency[a]"] for c in tighter) <= limit / 6


def test_percentile_is_a_metric_of_its_own(accuracy: AccuracyModel) -> None:
    models = models_of(accuracy, [measured_table(NANO)], ["latency.p99", "latency.p90"])
    rows = models.space.sample(np.random.default_rng(5), 100)
    usual = models.latency_on("bench").predict(rows)
    np.testing.assert_allclose(models.metrics["latency.p99"].predict(rows), 2 * usual, rtol=1e-3)
    np.testing.assert_allclose(models.metrics["latency.p90"].predict(rows), 1.5 * usual, rtol=1e-3)
    limit = float(np.median(usual))
    front = search(
        models.space,
        accuracy=models.accuracy,
        latency=models.latency,
        metrics=models.metrics,
        constraints=[f"latency.p99 <= {limit} ms"],
    )
    assert max(c.predicted["latency.p99"] for c in front) <= limit
    assert max(c.predicted["latency"] for c in front) <= limit / 2 * 1.001


def test_percentile_of_one_of_several_devices(accuracy: AccuracyModel) -> None:
    tables = [measured_table(NANO, "a"), measured_table(NANO, "b")]
    assert set(models_of(accuracy, tables, ["latency[b].p99"]).metrics) == {"latency[b].p99"}
    assert set(models_of(accuracy, tables, ["latency.p99"]).metrics) == {
        "latency[a].p99",
        "latency[b].p99",
    }


def test_percentile_of_an_imported_table(accuracy: AccuracyModel) -> None:
    imported = table_of(NANO, lambda block: 1.0, reference=None, source="csv: x.csv")
    with pytest.raises(InputError, match="nothing is known of p99"):
        models_of(accuracy, [imported], ["latency.p99"])


def test_energy_that_was_not_counted(accuracy: AccuracyModel) -> None:
    with pytest.raises(InputError, match="holds no energy"):
        models_of(accuracy, [measured_table(NANO)], ["energy"])


@pytest.mark.parametrize(
    ("text", "devices", "metric"),
    [
        ("latency <= 8 ms", ("a",), "latency"),
        ("latency[a].p99 <= 8 ms", ("a", "a"), "latency.p99"),
        ("latency[a] <= 8 ms", ("a",), "latency"),
        ("latency[a].p99 <= 8 ms", ("a",), "latency.p99"),
        ("latency[a] <= 8 ms", ("a", "b"), "latency[a]"),
        ("latency <= 8 ms", ("a", "b"), "latency"),
        ("macs <= 8M", ("a", "b"), "macs"),
    ],
)
def test_constraints_in_terms_of_the_tables(
    text: str, devices: tuple[str, ...], metric: str
) -> None:
    tables = [table_of(NANO, lambda block: 1.0, conditions=on(device)) for device in devices]
    (found,) = on_tables([parse_constraint(text)], tables)
    assert isinstance(found, Constraint) and found.metric == metric


def test_constraint_of_a_device_without_a_table() -> None:
    table = table_of(NANO, lambda block: 1.0, conditions=on("jetson"))
    with pytest.raises(UnknownNameError, match="did you mean jetson"):
        on_tables([parse_constraint("latency[jetso] <= 8 ms")], [table])


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("latency <= 8 ms", "latency"),
        ("latency[a] <= 8 ms", "latency"),
        ("latency[a].p99 <= 8 ms", "latency.p99"),
        ("macs <= 8M", "macs"),
    ],
)
def test_what_speaks_of_one_device(text: str, metric: str) -> None:
    parsed = parse_constraint(text)
    assert isinstance(parsed, Constraint)
    found = for_device(parsed, "a")
    assert found is not None and found.metric == metric
    other = for_device(parsed, "b")
    assert (other is None) == ("[a]" in text)
