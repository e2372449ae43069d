"""The process and its numbers, against formulas written out in numpy."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ofa_deploy.predict import gaussian_process
from ofa_deploy.predict.features import Features, features_of
from ofa_deploy.predict.gaussian_process import Numbers, Process, Warp, fit_process, leave_one_out
from ofa_deploy.space import Arch, SearchSpace

Floats = npt.NDArray[np.float64]


def covariance(numbers: Numbers, a: Floats, b: Floats) -> Floats:
    """Without noise, one pair of networks at a time."""
    pairs, local, near, _ = np.exp(numbers.logs[-4:])
    variances = np.array([math.exp(numbers.logs[group]) for group in numbers.groups])

    def of_two(x: Floats, y: Floats) -> float:
        product = float(sum(variances * x * y))
        distance = float(sum(variances * (x - y) ** 2))
        shared = local * math.exp(-near * distance / 2)
        return float(1 + product + pairs * product**2 + shared)

    return np.array([[of_two(x, y) for y in b] for x in a])


def noise(numbers: Numbers) -> float:
    return math.exp(numbers.logs[-1]) + 1e-7


def posterior(
    numbers: Numbers, warp: Warp, features: Floats, top1: Floats, asked: Floats
) -> Floats:
    """Mean at ``asked`` by the textbook, in percent."""
    seen = (-np.log(warp.ceiling - top1) - warp.mean) / warp.spread
    noisy = covariance(numbers, features, features) + noise(numbers) * np.eye(len(features))
    mean = covariance(numbers, asked, features) @ np.linalg.solve(noisy, seen)
    return warp.ceiling - np.exp(-(warp.mean + warp.spread * mean))


@pytest.fixture(scope="module")
def features(tiny_space: SearchSpace) -> Features:
    return features_of(tiny_space)


@pytest.fixture(scope="module")
def x(tiny_space: SearchSpace, features: Features, archs: list[Arch]) -> Floats:
    return features(tiny_space.encode(archs))


@pytest.fixture(scope="module")
def process(features: Features, x: Floats, top1: Floats) -> Process:
    return fit_process(x[:40], features.groups, top1[:40])


def test_process_is_the_posterior(process: Process, x: Floats, top1: Floats) -> None:
    expected = posterior(process.numbers, process.warp, x[:40], top1[:40], x[40:80])
    np.testing.assert_allclose(process.predict(x[40:80]), expected, rtol=1e-8)


@given(top1=arrays(float, st.integers(3, 20), elements=st.floats(0, 100)))
def test_warp_standardises_and_comes_back(top1: Floats) -> None:
    process = fit_process(np.zeros((len(top1), 1)), np.zeros(1, np.intp), top1)
    warp = process.warp
    assert warp.ceiling > top1.max()
    seen = warp(top1)
    np.testing.assert_allclose(warp.back(seen), top1, atol=1e-9)
    assert seen.mean() == pytest.approx(0, abs=1e-6)
    if np.ptp(top1) > 0.1:
        assert seen.std() == pytest.approx(1, rel=1e-6)
    assert (np.diff(seen[np.argsort(top1)]) >= 0).all()


def log_evidence(logs: Floats, groups: npt.NDArray[np.intp], x: Floats, top1: Floats) -> float:
    """Logarithm of the density of accuracies, times the prior; as the module's head has it."""
    gap = float(np.ptp(top1)) * math.exp(logs[-1])
    ceiling = float(top1.max()) + gap
    raw = -np.log(ceiling - top1)
    warp = Warp(ceiling, float(raw.mean()), float(raw.std()))
    numbers = Numbers(logs[:-1], groups)
    noisy = covariance(numbers, x, x) + noise(numbers) * np.eye(len(x))
    _, determinant = np.linalg.slogdet(noisy)
    seen = warp(top1)
    density = -0.5 * seen @ np.linalg.solve(noisy, seen) - 0.5 * determinant
    change = -np.log(ceiling - top1).sum() - len(x) * math.log(warp.spread)
    means = [-6.0] * (groups.max() + 1) + [-0.5, -5.0, 4.0, -6.0, 0.3]
    deviations = [1.5] * (groups.max() + 1) + [1.0, 2.0, 1.5, 2.0, 0.4]
    prior = -0.5 * (((logs - means) / deviations) ** 2).sum()
    return float(density + change + prior)


def test_numbers_are_the_most_probable(
    features: Features, process: Process, x: Floats, top1: Floats
) -> None:
    x, top1 = x[:40], top1[:40]
    gap = (process.warp.ceiling - top1.max()) / np.ptp(top1)
    logs = np.append(process.numbers.logs, math.log(gap))
    best = log_evidence(logs, features.groups, x, top1)
    changes = np.concatenate([sign * 0.3 * np.eye(len(logs)) for sign in (-1, 1)])
    others = [log_evidence(logs + change, features.groups, x, top1) for change in changes]
    assert max(others) < best + 0.02  # the search stops when little is left to gain
    assert np.median(others) < best


def test_slopes_are_the_values(
    features: Features, x: Floats, top1: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the search for numbers goes by, against differences of its values."""
    asked = []
    search = gaussian_process._most_probable

    def spy(loss, mean, deviation, start, steps):  # type: ignore[no-untyped-def]
        asked.append((loss, mean))
        return search(loss, mean, deviation, start, steps)

    monkeypatch.setattr(gaussian_process, "_most_probable", spy)
    found = fit_process(x[:25], features.groups, top1[:25])
    leave_one_out(found, x[:25], top1[:25])
    assert len(asked) == 11  # all networks, and without each tenth
    rng = np.random.default_rng(0)
    for loss, mean in asked[:2]:
        logs = mean + rng.normal(0, 0.3, len(mean))
        _, slopes = loss(logs)
        for number, step in enumerate(1e-5 * np.eye(len(logs))):
            difference = (loss(logs + step)[0] - loss(logs - step)[0]) / 2e-5
            assert slopes[number] == pytest.approx(difference, rel=1e-3, abs=1e-4)


def test_left_out_one_by_one(
    process: Process, x: Floats, top1: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers kept, as with many networks: the posterior of all others."""
    monkeypatch.setattr(gaussian_process, "_FEW", 0)
    x, top1 = x[:40], top1[:40]
    expected = [
        posterior(process.numbers, process.warp, x[rest], top1[rest], x[~rest])[0]
        for rest in (np.arange(40) != i for i in range(40))
    ]
    np.testing.assert_allclose(leave_one_out(process, x, top1), expected, atol=1e-6)


def test_measured_twice_is_left_out_twice(
    process: Process, x: Floats, top1: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaussian_process, "_FEW", 0)
    rows = np.array([*range(30), 4, 4, 9])
    top1 = top1[rows] + np.r_[np.zeros(30), 0.3, -0.1, 0.2]
    expected = [
        posterior(process.numbers, process.warp, x[rows[rest]], top1[rest], x[[row]])[0]
        for row, rest in ((row, rows != row) for row in rows)
    ]
    np.testing.assert_allclose(leave_one_out(process, x[rows], top1), expected, atol=1e-6)


@pytest.mark.parametrize("left_out", [0, 17, 5])
def test_own_accuracy_is_not_seen(process: Process, x: Floats, top1: Floats, left_out: int) -> None:
    """Whatever was measured of a network, all that is said of it stays the same."""
    rows = np.array([*range(40), 5, 5])
    own = rows == left_out
    before = leave_one_out(process, x[rows], top1[rows])
    after = leave_one_out(process, x[rows], np.where(own, top1[rows] - 1.5, top1[rows]))
    np.testing.assert_allclose(after[own], before[own], atol=1e-7)
    assert (np.abs(after - before)[~own] > 1e-6).all()


def test_numbers_fitted_to_all_flatter(
    features: Features, x: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of noise nothing can be learned: without numbers that saw a network errors are larger."""
    rng = np.random.default_rng(0)
    anew: list[float] = []
    kept: list[float] = []
    for _ in range(6):
        top1 = 50 + rng.normal(0, 1, 30)
        process = fit_process(x[:30], features.groups, top1)
        for few, errors in ((250, anew), (0, kept)):
            monkeypatch.setattr(gaussian_process, "_FEW", few)
            errors.append((leave_one_out(process, x[:30], top1) - top1).std() / top1.std())
        monkeypatch.undo()
    assert np.mean(anew) > np.mean(kept) + 0.02
    assert np.mean(anew) > 1.02


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_networks(features: Features, x: Floats, top1: Floats, n: int) -> None:
    process = fit_process(x[:n], features.groups, top1[:n])
    assert np.isfinite(process.predict(x)).all()
    assert np.isfinite(leave_one_out(process, x[:n], top1[:n])).all()


def test_prior_alone(features: Features) -> None:
    numbers = Numbers.prior(features.groups)
    np.testing.assert_allclose(numbers.variances, math.exp(-6))
    assert numbers.others == pytest.approx(
        (math.exp(-0.5), math.exp(-5), math.exp(4), math.exp(-6) + 1e-7)
    )


def test_more_networks_than_numbers_need(
    features: Features, x: Floats, top1: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of some, but predictions from all."""
    monkeypatch.setattr(gaussian_process, "_MOST", 30)
    process = fit_process(x[:60], features.groups, top1[:60])
    assert process.regressor.X_train_.shape[0] == 60
    expected = posterior(process.numbers, process.warp, x[:60], top1[:60], x[60:80])
    np.testing.assert_allclose(process.predict(x[60:80]), expected, rtol=1e-8)
