"""Latency models fitted to synthetic tables and networks whose truth is known."""

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np
import pytest

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.hardware import LatencyTable, NetworkEntry
from ofa_deploy.predict import HoldoutError, LatencyModel, latency_model
from ofa_deploy.space import Arch, Block, SearchSpace
from tests.tables import measurement, table_of


def block_ms(block: Block) -> float:
    """A table's figure: never a multiple of MACs, of 1 or of one another."""
    return 1e-6 * block.macs + 3e-7 * block.bytes_moved + 1e-3 * block.kernel


def network_ms(space: SearchSpace, arch: Arch) -> float:
    """The truth: 1.3 times the blocks, 0.05 ms a block and 0.4 ms a network."""
    blocks = space.lower(arch)
    return 1.3 * sum(map(block_ms, blocks)) + 0.05 * len(blocks) + 0.4


def entries(role: str, archs: Sequence[Arch], ms: Sequence[float]) -> list[NetworkEntry]:
    return [
        NetworkEntry.model_validate(
            {"arch": arch.to_dict(), "role": role, "latency": measurement(value)}
        )
        for arch, value in zip(archs, ms, strict=True)
    ]


def table_with(space: SearchSpace, networks: Sequence[NetworkEntry] = ()) -> LatencyTable:
    return table_of(space, block_ms, empty_ms=0.01, networks=tuple(networks))


@pytest.fixture
def draw(tiny_space: SearchSpace, rng: np.random.Generator) -> Callable[[int], list[Arch]]:
    """``n`` random networks, all different."""

    def call(n: int) -> list[Arch]:
        archs = dict.fromkeys(tiny_space.decode(tiny_space.sample(rng, 4 * n)))
        return list(archs)[:n]

    return call


Draw = Callable[[int], list[Arch]]


def truth(space: SearchSpace, archs: Sequence[Arch]) -> list[float]:
    return [network_ms(space, arch) for arch in archs]


# -- tables ---------------------------------------------------------------------------------


def test_table_model_recovers_scale_cost_a_block_and_offset(
    tiny_space: SearchSpace, draw: Draw
) -> None:
    archs = draw(60)
    learn, unseen = archs[:10], archs[10:]
    table = table_with(tiny_space, entries("calibration", learn, truth(tiny_space, learn)))
    model = latency_model(tiny_space, table)
    np.testing.assert_allclose(model.predict(unseen), truth(tiny_space, unseen), rtol=1e-9)
    population = tiny_space.encode(unseen)
    np.testing.assert_array_equal(model.predict(population), model.predict(unseen))
    assert model.offset == pytest.approx(0.4)
    assert (model.margin, model.holdout) == (0.0, None)


def test_table_model_fits_relative_errors(tiny_space: SearchSpace, draw: Draw) -> None:
    """Off by a factor at random, the mean of the ratios comes out right at every size."""
    archs = draw(200)
    noise = np.exp(np.random.default_rng(1).normal(0, 0.05, 200))
    measured = truth(tiny_space, archs) * noise
    model = latency_model(
        tiny_space, table_with(tiny_space, entries("calibration", archs, measured))
    )
    ratio = model.predict(archs) / truth(tiny_space, archs)
    assert ratio == pytest.approx(1, abs=0.04)


def test_table_model_is_judged_on_its_holdout(tiny_space: SearchSpace, draw: Draw) -> None:
    archs = draw(30)
    learn, held = archs[:20], archs[20:]
    off = np.array([1.02, 0.99, 1.04, 0.94, 1.0, 1.07, 0.88, 1.01, 1.03, 0.97])
    measured = truth(tiny_space, held) * off
    table = table_with(
        tiny_space,
        entries("calibration", learn, truth(tiny_space, learn))
        + entries("holdout", held, list(measured)),
    )
    model = latency_model(tiny_space, table)
    error = np.abs(1 / off - 1)
    assert model.holdout is not None
    assert model.holdout.networks == 10
    assert model.holdout.mape == pytest.approx(100 * error.mean())
    assert model.holdout.within_5 == pytest.approx(70)
    assert model.holdout.within_10 == pytest.approx(90)
    # ceil(11 · 0.9) = 10, of 10 networks: the worst one, 12 % faster than predicted.
    assert model.margin == pytest.approx(0.12)


def test_table_of_another_space_is_refused(tiny_space: SearchSpace) -> None:
    table = table_with(tiny_space)
    said = "made for space tiny with 4 classes .* with 5 .*with_classes"
    with pytest.raises(MismatchError, match=said):
        latency_model(tiny_space.with_classes(5), table)


def test_missing_block_names_the_nearest(tiny_space: SearchSpace, draw: Draw) -> None:
    archs = draw(5)
    table = table_with(tiny_space, entries("calibration", archs, truth(tiny_space, archs)))
    gone = "mbconv_8x8_8-24-16_k5_s2_relu"
    assert gone in table.blocks
    blocks = {key: entry for key, entry in table.blocks.items() if key != gone}
    with pytest.raises(MismatchError) as caught:
        latency_model(tiny_space, table.model_copy(update={"blocks": blocks}))
    message = str(caught.value)
    assert f"tiny on bench has no block {gone}; nearest: " in message
    assert any(f"mbconv_8x8_8-24-16_k{kernel}_s2_relu" in message for kernel in (3, 7))


def test_table_with_too_few_networks_is_refused(tiny_space: SearchSpace, draw: Draw) -> None:
    archs = draw(2)
    table = table_with(tiny_space, entries("calibration", archs, truth(tiny_space, archs)))
    with pytest.raises(InputError, match="at least 3 networks"):
        latency_model(tiny_space, table)


# -- judging --------------------------------------------------------------------------------


def judged(space: SearchSpace, archs: Sequence[Arch], errors: Sequence[float]) -> LatencyModel:
    """A model and networks that take ``1 + error`` times as long as it predicts."""
    blocks = AdditiveModel.from_blocks(space, block_ms)
    model = LatencyModel(space, blocks.tables)
    model.judge(archs, list(model.predict(archs) * (1 + np.array(errors))))
    return model


@pytest.mark.parametrize(
    ("networks", "rank"), [(2, 2), (5, 5), (8, 8), (9, 9), (10, 10), (19, 18), (20, 19), (99, 90)]
)
def test_margin_is_the_conformal_rank(
    tiny_space: SearchSpace, draw: Draw, networks: int, rank: int
) -> None:
    """Of n sorted errors the ceil(0.9·(n + 1))-th, the last where there is no such one."""
    errors = np.arange(1, networks + 1) / 200 * np.resize([1, -1], networks)
    order = np.random.default_rng(2).permutation(networks)
    model = judged(tiny_space, draw(networks), errors[order])
    assert rank == min(networks, ceil(9 * (networks + 1) / 10))
    assert model.margin == pytest.approx(rank / 200)


def test_interval_covers_new_networks_as_often_as_it_says(
    tiny_space: SearchSpace, draw: Draw
) -> None:
    archs = draw(400)
    errors = np.random.default_rng(3).normal(0, 0.1, 400)
    model = judged(tiny_space, archs[:100], errors[:100])
    measured = model.predict(archs[100:]) * (1 + errors[100:])
    low, high = model.interval(archs[100:])
    share = ((low <= measured) & (measured <= high)).mean()
    assert share == pytest.approx(0.9, abs=0.06)


def test_interval_is_relative_to_the_prediction(tiny_space: SearchSpace, draw: Draw) -> None:
    archs = draw(5)
    model = judged(tiny_space, archs, [0.1, -0.2, 0.25, 0.0, 0.05])
    low, high = model.interval(archs)
    np.testing.assert_allclose(low, 0.75 * model.predict(archs))
    np.testing.assert_allclose(high, 1.25 * model.predict(archs))


def test_interval_never_reaches_zero(tiny_space: SearchSpace, draw: Draw) -> None:
    model = judged(tiny_space, draw(3), [4.0, 0.1, 0.2])
    low, _ = model.interval(draw(3))
    assert (low > 0).all()


def test_holdout_error_by_hand() -> None:
    error = HoldoutError.of(np.array([10, 20, 30, 40.0]), np.array([10, 21, 27, 50.0]))
    assert error.networks == 4
    assert error.mape == pytest.approx(100 * (0 + 1 / 21 + 3 / 27 + 10 / 50) / 4)
    assert (error.within_5, error.within_10) == (50, 50)
    assert error.spearman == pytest.approx(1)
    assert str(error) == (
        "4 hold-out networks: mean error 9.0 %, 50 % within 5 %, 50 % within 10 %, "
        "rank correlation 1.000"
    )


def test_holdout_rank_correlation_by_hand() -> None:
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6·4 / (4·15).
    error = HoldoutError.of(np.array([1, 2, 3, 4.0]), np.array([20, 10, 40, 30.0]))
    assert error.spearman == pytest.approx(0.6)
