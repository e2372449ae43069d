"""Accuracy models fitted to measurements, against a Gaussian process written out in numpy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.predict import (
    AccuracyModel,
    choose_subnets,
    fit_accuracy,
    load_accuracy_model,
    refit_accuracy,
)
from ofa_deploy.predict.accuracy import accuracy_facts
from ofa_deploy.predict.features import features_of
from ofa_deploy.predict.gaussian_process import Process, fit_process, leave_one_out
from ofa_deploy.predict.onnx_graph import OnnxGraph
from ofa_deploy.space import Arch, SearchSpace, get_space
from tests.predict.conftest import narrow_space, true_top1
from tests.predict.test_gaussian_process import posterior

Floats = npt.NDArray[np.float64]


def features(space: SearchSpace, archs: list[Arch]) -> Floats:
    return features_of(space)(space.encode(archs))


def process_of(space: SearchSpace, archs: list[Arch], top1: Floats) -> Process:
    return fit_process(features(space, archs), features_of(space).groups, top1)


@pytest.fixture(scope="module")
def model(tiny_space: SearchSpace, archs: list[Arch], top1: Floats) -> AccuracyModel:
    return fit_accuracy(tiny_space, archs[:60], top1[:60].tolist())


def test_model_is_much_better_than_the_mean(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, model: AccuracyModel
) -> None:
    truth = np.array([true_top1(tiny_space, arch) for arch in archs[60:]])
    error = float(np.sqrt(((model.predict(archs[60:]) - truth) ** 2).mean()))
    of_the_mean = float(np.sqrt(((top1[:60].mean() - truth) ** 2).mean()))
    assert error < 0.2 * of_the_mean
    assert kendalltau(model.predict(archs[60:]), truth).statistic > 0.9


def test_graph_is_the_posterior(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, model: AccuracyModel
) -> None:
    found = process_of(tiny_space, archs[:60], top1[:60])
    x = features(tiny_space, archs)
    expected = posterior(found.numbers, found.warp, x[:60], top1[:60], x)
    np.testing.assert_allclose(model.predict(archs), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "ofa-resnet50", "compofa-mbv3"])
def test_graph_is_the_process_in_published_spaces(name: str) -> None:
    space = get_space(name)
    rng = np.random.default_rng(4)
    archs = space.decode(space.sample(rng, 200))
    macs = np.array([space.cost(arch).macs for arch in archs])
    top1 = 70 + 3 * np.log(macs / macs.mean()) + rng.normal(0, 0.05, len(archs))
    model = fit_accuracy(space, archs[:40], top1[:40])
    expected = process_of(space, archs[:40], top1[:40]).predict(features(space, archs))
    np.testing.assert_allclose(model.predict(archs), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("n", "rank"), [(12, 12), (60, 55)])
def test_errors_are_of_networks_left_out(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, n: int, rank: int
) -> None:
    """Of 12 errors the 12th is the margin, of 60 the ceil(61 · 0.9) = 55th."""
    model = fit_accuracy(tiny_space, archs[:n], top1[:n])
    found = process_of(tiny_space, archs[:n], top1[:n])
    left_out = leave_one_out(found, features(tiny_space, archs[:n]), top1[:n])
    errors = np.abs(left_out - top1[:n])
    assert model.rmse == pytest.approx(float(np.sqrt((errors**2).mean())), rel=1e-6)
    assert model.margin == pytest.approx(float(np.sort(errors)[rank - 1]), rel=1e-6)
    assert model.kendall == pytest.approx(kendalltau(left_out, top1[:n]).statistic)
    assert model.networks == n


@pytest.mark.parametrize("n", [30, 60])
def test_interval_covers_unseen_networks(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, n: int
) -> None:
    """On the whole 90 %, whichever networks were measured."""
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(4):
        order = rng.permutation(len(archs))
        drawn, others = order[:n], order[n:]
        model = fit_accuracy(tiny_space, [archs[i] for i in drawn], top1[drawn])
        low, high = model.interval([archs[i] for i in others])
        covered.append(((low <= top1[others]) & (top1[others] <= high)).mean())
    assert 0.84 < np.mean(covered) < 0.97


def test_same_measurements_give_the_same_model(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, model: AccuracyModel
) -> None:
    again = fit_accuracy(tiny_space, tiny_space.encode(archs[:60]), top1[:60])
    np.testing.assert_array_equal(again.predict(archs), model.predict(archs))
    assert (again.margin, again.rmse, again.kendall) == (model.margin, model.rmse, model.kendall)


# -- accuracies and networks that are odd -----------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 50.0, 100.0])
def test_equal_accuracies_are_predicted(
    tiny_space: SearchSpace, archs: list[Arch], value: float
) -> None:
    model = fit_accuracy(tiny_space, archs[:10], [value] * 10)
    np.testing.assert_allclose(model.predict(archs), value, atol=1e-3)
    assert model.rmse == pytest.approx(0, abs=1e-6)
    assert model.kendall == 0.0


@settings(max_examples=12)
@given(
    top1=st.lists(st.floats(0, 100) | st.sampled_from([0.0, 100.0]), min_size=9, max_size=16),
    different=st.integers(1, 16),
)
def test_any_accuracies_of_any_networks(
    tiny_space: SearchSpace, archs: list[Arch], top1: list[float], different: int
) -> None:
    """Identical networks with different accuracies among them, or all of them."""
    networks = [archs[i % different] for i in range(len(top1))]
    model = fit_accuracy(tiny_space, networks, top1)
    predicted = model.predict(archs)
    assert ((predicted >= 0) & (predicted <= 100)).all()
    assert np.isfinite([model.margin, model.rmse, model.kendall]).all()
    assert model.margin >= 0
    process = process_of(tiny_space, networks, np.array(top1))
    expected = process.predict(features(tiny_space, archs)).clip(0, 100)
    np.testing.assert_allclose(predicted, expected, atol=5e-3)


def test_accuracies_that_differ_by_rounding(tiny_space: SearchSpace, archs: list[Arch]) -> None:
    top1 = [50.0 + 7.2e-15 * (number % 2) for number in range(12)]
    model = fit_accuracy(tiny_space, archs[:12], top1)
    np.testing.assert_allclose(model.predict(archs), 50, atol=1e-5)


def test_network_measured_twice(tiny_space: SearchSpace, archs: list[Arch], top1: Floats) -> None:
    """Its prediction lies between both, and neither is what the other is judged by."""
    twice, once = archs[:20], [*archs[:20], *archs[20:60]]
    model = fit_accuracy(tiny_space, [*twice, *once], [*(top1[:20] + 1.0), *top1[:60]])
    assert model.networks == 80
    assert np.abs(model.predict(twice) - (top1[:20] + 0.5)).mean() < 0.3
    same = fit_accuracy(tiny_space, archs[:12] * 2, [*top1[:12], *top1[:12]])
    alone = fit_accuracy(tiny_space, archs[:12], top1[:12])
    assert same.rmse > 0.5 * alone.rmse


def test_all_are_one_network(tiny_space: SearchSpace, archs: list[Arch]) -> None:
    model = fit_accuracy(tiny_space, archs[:1] * 9, np.linspace(40, 60, 9))
    assert model.predict(archs[:1])[0] == pytest.approx(50, abs=2)
    assert model.margin > 5


@pytest.mark.parametrize(
    "space",
    [
        narrow_space(resolutions=(12, 16)),
        narrow_space(depths=(1, 2)),
        narrow_space(kernels=(3, 5, 7)),
        narrow_space(expands=(2, 3)),
    ],
    ids=["resolution", "depth", "kernel", "expand"],
)
def test_one_gene_alone(space: SearchSpace) -> None:
    archs = space.decode(space.sample(np.random.default_rng(0), 18))
    top1 = np.array([true_top1(space, arch) for arch in archs])
    model = fit_accuracy(space, archs, top1)
    np.testing.assert_allclose(model.predict(archs), top1, atol=0.02 * np.ptp(top1))


def test_single_network_is_nothing_to_learn_from() -> None:
    space = narrow_space()
    with pytest.raises(InputError, match="space narrow holds a single network"):
        fit_accuracy(space, [space.smallest] * 9, [50.0] * 9)


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(("networks", "accuracies"), [(8, 8), (3, 3), (0, 0), (10, 9), (9, 10)])
def test_numbers_of_networks_and_accuracies(
    tiny_space: SearchSpace, archs: list[Arch], networks: int, accuracies: int
) -> None:
    with pytest.raises(InputError, match=f"at least 9 .* found {networks} and {accuracies}"):
        fit_accuracy(tiny_space, archs[:networks], [50.0] * accuracies)


@pytest.mark.parametrize("wrong", [-0.1, 100.1, float("nan"), float("inf")])
def test_accuracies_are_percent(tiny_space: SearchSpace, archs: list[Arch], wrong: float) -> None:
    with pytest.raises(InputError, match="accuracies must be percent, between 0 and 100"):
        fit_accuracy(tiny_space, archs[:9], [50.0] * 8 + [wrong])


def test_networks_of_another_space_are_refused(tiny_space: SearchSpace, archs: list[Arch]) -> None:
    with pytest.raises(MismatchError, match="resolution = 20"):
        fit_accuracy(tiny_space, [replace(archs[0], resolution=20), *archs[:8]], [50.0] * 9)
    with pytest.raises(InputError, match="expected a population of shape"):
        fit_accuracy(tiny_space, np.zeros((9, 3), np.int8), [50.0] * 9)


def test_nine_networks_are_enough(tiny_space: SearchSpace, archs: list[Arch], top1: Floats) -> None:
    """Of nine errors the ceil(10 · 0.9) = 9th is the margin: the fewest of which one is."""
    model = fit_accuracy(tiny_space, archs[:9], top1[:9].tolist())
    assert model.networks == 9
    assert np.isfinite(model.margin)


def test_most_networks(tiny_space: SearchSpace) -> None:
    rows = tiny_space.sample(np.random.default_rng(0), 5_001)
    with pytest.raises(InputError, match="at most 5,000, .* found 5001 and 5001"):
        fit_accuracy(tiny_space, rows, np.full(5_001, 50.0))


# -- refits -----------------------------------------------------------------------------------


def test_refit_is_a_fit_to_all(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, model: AccuracyModel
) -> None:
    some = fit_accuracy(tiny_space, archs[:50], top1[:50])
    again = refit_accuracy(some, archs[50:60], top1[50:60].tolist())
    np.testing.assert_array_equal(again.predict(archs), model.predict(archs))
    assert (again.networks, again.margin) == (60, model.margin)
    rows, known = again.measured
    assert tiny_space.decode(rows) == archs[:60]
    np.testing.assert_array_equal(known, top1[:60])


def test_refit_learns_nothing_twice(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, model: AccuracyModel
) -> None:
    """A network that is known keeps its accuracy; one that comes twice has its first."""
    more = [archs[3], archs[60], archs[60]]
    again = refit_accuracy(model, more, [1.0, top1[60], 2.0])
    assert again.networks == 61
    np.testing.assert_array_equal(again.measured[1], top1[:61])
    same = refit_accuracy(model, [], [])
    np.testing.assert_array_equal(same.predict(archs), model.predict(archs))


def test_refit_of_a_loaded_model(
    archs: list[Arch], top1: Floats, model: AccuracyModel, tmp_path: Path
) -> None:
    loaded = load_accuracy_model(model.save(tmp_path / "accuracy.onnx"))
    more = archs[60:70], top1[60:70]
    np.testing.assert_array_equal(
        refit_accuracy(loaded, *more).predict(archs), refit_accuracy(model, *more).predict(archs)
    )


def test_refit_for_fewer_resolutions(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats, model: AccuracyModel
) -> None:
    """It still knows what was measured at the others."""
    only = tiny_space.with_resolutions(16)
    large = [
        (arch, value) for arch, value in zip(archs, top1, strict=True) if arch.resolution == 16
    ]
    more = [arch for arch, _ in large[-10:]], [value for _, value in large[-10:]]
    again = refit_accuracy(model.onto(only), *more)
    assert again.space.fingerprint == only.fingerprint
    assert again.fitted_space.fingerprint == tiny_space.fingerprint
    asked = [arch for arch, _ in large]
    expected = refit_accuracy(model, *more)
    np.testing.assert_array_equal(again.predict(asked), expected.predict(asked))
    twice = refit_accuracy(again, asked[:5], [value for _, value in large[:5]])
    assert twice.networks >= again.networks
    assert twice.space.fingerprint == only.fingerprint


def test_refit_brings_predictions_nearer(
    tiny_space: SearchSpace, archs: list[Arch], top1: Floats
) -> None:
    few = fit_accuracy(tiny_space, archs[:12], top1[:12])
    more = refit_accuracy(few, archs[12:60], top1[12:60])

    def error(model: AccuracyModel) -> float:
        return float(np.sqrt(((model.predict(archs[60:]) - top1[60:]) ** 2).mean()))

    assert error(more) < 0.5 * error(few)
    assert more.margin < few.margin


@pytest.mark.parametrize("accuracies", [1, 3])
def test_refit_to_other_numbers(archs: list[Arch], model: AccuracyModel, accuracies: int) -> None:
    message = f"one accuracy a network, found 2 networks and {accuracies} accuracies"
    with pytest.raises(InputError, match=message):
        refit_accuracy(model, archs[60:62], [50.0] * accuracies)


def test_refit_to_what_is_no_accuracy(archs: list[Arch], model: AccuracyModel) -> None:
    with pytest.raises(InputError, match="accuracies must be percent"):
        refit_accuracy(model, archs[60:61], [float("nan")])


def test_model_from_elsewhere_stays(
    tiny_space: SearchSpace, archs: list[Arch], rng: np.random.Generator
) -> None:
    """It has no measurements to add to; what to measure is chosen as if nothing were known."""
    graph = OnnxGraph()
    graph.add("ReduceSum", "population", graph.ints([1]), keepdims=0)
    facts = accuracy_facts(tiny_space, source="elsewhere")
    model = AccuracyModel.of(graph.model("accuracy", "population", "top1"), tiny_space, facts)
    assert refit_accuracy(model, archs[:10], [50.0] * 10) is model
    assert len(set(choose_subnets(model, 3, rng=rng))) == 3
