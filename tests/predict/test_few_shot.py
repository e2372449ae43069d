"""``fit_latency``: whole networks and priors, whose truth is known."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from ofa_deploy.cost import AdditiveModel, macs_model, params_model, peak_memory_model
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.predict import LatencyModel, fit_latency
from ofa_deploy.space import Block, Population, SearchSpace

Floats = npt.NDArray[np.float64]
Draw = Callable[[int], Population]


@pytest.fixture
def draw(tiny_space: SearchSpace, rng: np.random.Generator) -> Draw:
    """``n`` random networks, all different."""

    def call(n: int) -> Population:
        return rng.permutation(np.unique(tiny_space.sample(rng, 4 * n), axis=0))[:n]

    return call


def block_ms(block: Block) -> float:
    """A device: never a multiple of MACs, of 1 or of one another."""
    return 1e-6 * block.macs + 3e-7 * block.bytes_moved + 1e-3 * block.kernel


def scaled(model: AdditiveModel, scale: float) -> AdditiveModel:
    """The same in another unit."""
    tables = [(columns, scale * table) for columns, table in model.tables]
    return AdditiveModel(model.space, tables, offset=scale * model.offset)


@pytest.fixture
def device(tiny_space: SearchSpace) -> AdditiveModel:
    return AdditiveModel.from_blocks(tiny_space, block_ms, offset=0.02)


@pytest.fixture
def odd_device(tiny_space: SearchSpace) -> AdditiveModel:
    """Every kind of block is faster or slower than others by a factor of its own."""
    factors = np.random.default_rng(4)
    tables = []
    for columns, table in macs_model(tiny_space).tables:
        factor = np.exp(factors.normal(0, 0.4, (1, *table.shape[1:])))
        tables.append((columns, 1e-6 * table * factor))
    return AdditiveModel(tiny_space, tables, offset=0.01)


def useless(space: SearchSpace, seed: int) -> AdditiveModel:
    """Tables of random numbers."""
    rng = np.random.default_rng(seed)
    return AdditiveModel(space, [(c, rng.random(t.shape)) for c, t in macs_model(space).tables])


def mape(model: AdditiveModel, truth: AdditiveModel, networks: Population) -> float:
    """Mean absolute error, percent."""
    return 100 * float(np.abs(model.predict(networks) / truth.predict(networks) - 1).mean())


def everything(space: SearchSpace) -> Population:
    """Every network of the space."""
    rows = np.array(list(product(*(range(len(g.choices)) for g in space.genes))), np.int8)
    return np.unique(space.mask_inactive(rows), axis=0)


# -- what it finds ------------------------------------------------------------------------------


def test_many_networks_give_every_block_its_own_time(
    tiny_space: SearchSpace, draw: Draw, odd_device: AdditiveModel
) -> None:
    networks = draw(900)
    model = fit_latency(tiny_space, networks[:500], odd_device.predict(networks[:500]))
    assert mape(model, odd_device, networks[500:]) < 0.1
    # MACs alone are far from it, so the corrections did that.
    alone = fit_latency(tiny_space, networks[:5], odd_device.predict(networks[:5]))
    assert mape(alone, odd_device, networks[500:]) > 2


@pytest.mark.parametrize("scale", [1e-6, 0.3, 1e6])
def test_a_prior_in_another_unit_needs_five_networks(
    tiny_space: SearchSpace, draw: Draw, odd_device: AdditiveModel, scale: float
) -> None:
    networks = draw(200)
    priors = [scaled(odd_device, scale)]
    model = fit_latency(tiny_space, networks[:5], odd_device.predict(networks[:5]), priors)
    assert mape(model, odd_device, networks[5:]) < 1


def test_priors_are_combined(tiny_space: SearchSpace, draw: Draw, device: AdditiveModel) -> None:
    networks = draw(60)
    second = params_model(tiny_space)
    ms = 0.7 * device.predict(networks) + 3e-5 * second.predict(networks)
    model = fit_latency(tiny_space, networks[:20], ms[:20], [device, second])
    np.testing.assert_allclose(model.predict(networks[20:]), ms[20:], rtol=1e-8)


def test_macs_and_blocks_do_without_priors(tiny_space: SearchSpace, draw: Draw) -> None:
    networks = draw(40)
    macs = macs_model(tiny_space).predict(networks)
    blocks = np.array([len(tiny_space.lower(arch)) for arch in tiny_space.decode(networks)])
    ms = 2e-6 * macs + 0.1 * blocks + 0.3
    model = fit_latency(tiny_space, networks[:8], ms[:8])
    np.testing.assert_allclose(model.predict(networks[8:]), ms[8:], rtol=1e-8)


def test_a_device_unlike_its_prior_is_corrected(
    tiny_space: SearchSpace, draw: Draw, device: AdditiveModel, odd_device: AdditiveModel
) -> None:
    networks = draw(600)
    errors = [
        mape(
            fit_latency(tiny_space, networks[:n], odd_device.predict(networks[:n]), [device]),
            odd_device,
            networks[300:],
        )
        for n in (5, 30, 300)
    ]
    assert errors[0] > errors[1] > 10 * errors[2]


def test_resolutions_never_measured_follow_from_others(
    tiny_space: SearchSpace, rng: np.random.Generator
) -> None:
    space = tiny_space.with_resolutions(12, 16, 20, 24, 28, 32)
    truth = AdditiveModel.from_blocks(
        space, lambda block: block_ms(block) * (1 + 0.3 * (block.kernel == 5))
    )
    networks = space.sample(rng, 900)
    seen = networks[networks[:, 0] != 3][:300]
    model = fit_latency(space, seen, truth.predict(seen))
    assert mape(model, truth, networks[networks[:, 0] == 3]) < 2


# -- what does it no harm -----------------------------------------------------------------------


def noisy(truth: AdditiveModel, networks: Population) -> Floats:
    """Timings off by 2 %."""
    noise = np.random.default_rng(6).normal(0, 0.02, len(networks))
    return truth.predict(networks) * np.exp(noise)


@pytest.mark.parametrize("n", [10, 30, 300])
def test_useless_priors_do_no_harm(
    tiny_space: SearchSpace, draw: Draw, device: AdditiveModel, n: int
) -> None:
    networks = draw(n + 200)
    ms = noisy(device, networks[:n])
    priors = [useless(tiny_space, seed) for seed in range(3)]
    without = fit_latency(tiny_space, networks[:n], ms)
    model = fit_latency(tiny_space, networks[:n], ms, priors)
    assert mape(model, device, networks[n:]) < mape(without, device, networks[n:]) + 1


def test_equal_and_collinear_priors_change_nothing(
    tiny_space: SearchSpace, draw: Draw, device: AdditiveModel
) -> None:
    networks = draw(100)
    ms = noisy(device, networks[:12])
    both = [device, macs_model(tiny_space)]
    one = fit_latency(tiny_space, networks[:12], ms, both)
    many = fit_latency(tiny_space, networks[:12], ms, [*both, *both, scaled(device, 7.0)])
    np.testing.assert_allclose(many.predict(networks), one.predict(networks), rtol=1e-6)


def test_a_prior_of_zeros_changes_nothing(
    tiny_space: SearchSpace, draw: Draw, device: AdditiveModel
) -> None:
    networks = draw(100)
    ms = noisy(device, networks[:12])
    zero = scaled(device, 0.0)
    np.testing.assert_allclose(
        fit_latency(tiny_space, networks[:12], ms, [zero]).predict(networks),
        fit_latency(tiny_space, networks[:12], ms).predict(networks),
        rtol=1e-9,
    )


def test_three_networks_are_enough_to_be_sane(
    tiny_space: SearchSpace, draw: Draw, device: AdditiveModel
) -> None:
    networks = draw(200)
    model = fit_latency(tiny_space, networks[:3], device.predict(networks[:3]), [device])
    assert mape(model, device, networks[3:]) < 1
    alike = fit_latency(tiny_space, networks[[0, 0, 0]], [2.0, 2.0, 2.0])
    assert alike.predict(networks[:1]) == pytest.approx(2.0)
    assert np.isfinite(alike.predict(networks)).all()


@pytest.mark.parametrize("factor", [0.1, 5.0, 100.0])
def test_one_timing_far_out_spoils_nothing(
    tiny_space: SearchSpace, draw: Draw, device: AdditiveModel, factor: float
) -> None:
    networks = draw(230)
    ms = noisy(device, networks[:30])
    ms[7] *= factor
    model = fit_latency(tiny_space, networks[:30], ms, [device])
    assert mape(model, device, networks[30:]) < 1.5


def test_units_of_priors_and_of_time_do_not_count(
    tiny_space: SearchSpace, draw: Draw, device: AdditiveModel, odd_device: AdditiveModel
) -> None:
    networks = draw(100)
    ms = noisy(odd_device, networks[:40])
    plain = fit_latency(tiny_space, networks[:40], ms, [device]).predict(networks)
    other = fit_latency(tiny_space, networks[:40], ms, [scaled(device, 1e5)]).predict(networks)
    np.testing.assert_allclose(other, plain, rtol=1e-6)
    in_s = fit_latency(tiny_space, networks[:40], ms / 1e3, [device]).predict(networks)
    np.testing.assert_allclose(1e3 * in_s, plain, rtol=1e-6)


# -- what it returns ----------------------------------------------------------------------------


def test_the_result_is_additive_and_its_bounds_exact(
    tiny_space: SearchSpace, draw: Draw, device: AdditiveModel, odd_device: AdditiveModel
) -> None:
    networks = draw(60)
    model = fit_latency(tiny_space, networks, odd_device.predict(networks), [device])
    assert isinstance(model, LatencyModel)
    every = everything(tiny_space)
    assert len(every) == tiny_space.num_archs
    summed = np.full(len(every), model.offset)
    for columns, table in model.tables:
        summed += table[tuple(every[:, column].astype(int) + 1 for column in columns)]
    np.testing.assert_allclose(model.predict(every), summed)
    assert model.bounds() == pytest.approx((summed.min(), summed.max()))


def test_predictions_are_positive_over_the_whole_space(tiny_space: SearchSpace, draw: Draw) -> None:
    """Also where latency falls with MACs, which no device's prior does."""
    networks = draw(40)
    macs = macs_model(tiny_space).predict(networks)
    model = fit_latency(tiny_space, networks, 10.0 - 9.9 * macs / macs.max())
    assert model.bounds()[0] > 0


def test_the_same_again(tiny_space: SearchSpace, draw: Draw, odd_device: AdditiveModel) -> None:
    networks = draw(80)
    ms = noisy(odd_device, networks)
    first, second = (fit_latency(tiny_space, networks, ms) for _ in range(2))
    assert first.offset == second.offset
    for (_, one), (_, other) in zip(first.tables, second.tables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_resolution_will_do(tiny_space: SearchSpace, rng: np.random.Generator) -> None:
    space = tiny_space.with_resolutions(16)
    truth = AdditiveModel.from_blocks(space, block_ms)
    networks = space.sample(rng, 300)
    model = fit_latency(space, networks[:200], truth.predict(networks[:200]))
    assert mape(model, truth, networks[200:]) < 0.5


# -- what it refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize("networks", [0, 1, 2])
def test_three_networks_at_least(tiny_space: SearchSpace, draw: Draw, networks: int) -> None:
    with pytest.raises(InputError, match=f"found {networks} and {networks}"):
        fit_latency(tiny_space, draw(3)[:networks], [1.0] * networks)


def test_a_latency_a_network(tiny_space: SearchSpace, draw: Draw) -> None:
    with pytest.raises(InputError, match="found 5 and 4"):
        fit_latency(tiny_space, draw(5), [1.0] * 4)
    with pytest.raises(InputError, match="found 5 and 10"):
        fit_latency(tiny_space, draw(5), np.ones((5, 2)))


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_latencies_are_positive(tiny_space: SearchSpace, draw: Draw, wrong: float) -> None:
    with pytest.raises(InputError, match="latencies must be positive and finite, in ms"):
        fit_latency(tiny_space, draw(4), [1.0, 2.0, wrong, 3.0])


def test_networks_are_of_the_space(tiny_space: SearchSpace, draw: Draw) -> None:
    archs = tiny_space.decode(draw(4))
    with pytest.raises(MismatchError, match="resolution = 20"):
        fit_latency(tiny_space, [*archs[:3], replace(archs[3], resolution=20)], [1.0] * 4)
    with pytest.raises(InputError, match="expected a population of shape"):
        fit_latency(tiny_space, np.zeros((4, 3), np.int8), [1.0] * 4)


def test_priors_are_of_the_space(tiny_space: SearchSpace, draw: Draw) -> None:
    """One with as many genes too is refused: its answers would be about other networks."""
    other = replace(tiny_space, resolutions=(12, 32))
    with pytest.raises(MismatchError, match="a prior is for space tiny"):
        fit_latency(tiny_space, draw(4), [1.0] * 4, priors=[macs_model(other)])


def test_priors_are_finite_sums(tiny_space: SearchSpace, draw: Draw) -> None:
    with pytest.raises(InputError, match="must be a sum over blocks, not their maximum"):
        fit_latency(tiny_space, draw(4), [1.0] * 4, priors=[peak_memory_model(tiny_space)])
    endless = AdditiveModel.from_blocks(tiny_space, lambda block: np.inf)
    with pytest.raises(InputError, match="a prior's values must be finite"):
        fit_latency(tiny_space, draw(4), [1.0] * 4, priors=[endless])
