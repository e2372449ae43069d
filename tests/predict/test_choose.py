"""Which networks are measured next."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor

from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.predict import AccuracyModel, choose_subnets, fit_accuracy, refit_accuracy
from ofa_deploy.predict.features import features_of
from ofa_deploy.predict.gaussian_process import Numbers, fit_process
from ofa_deploy.space import Arch, SearchSpace
from tests.predict.conftest import narrow_space, true_top1

Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def model(tiny_space: SearchSpace, archs: list[Arch], top1: Floats) -> AccuracyModel:
    return fit_accuracy(tiny_space, archs[:20], top1[:20])


def left_uncertain(
    space: SearchSpace, numbers: Numbers, known: list[Arch], asked: list[Arch]
) -> float:
    """The sum of variances at ``asked``, as scikit-learn has it, the noise left out."""
    features = features_of(space)
    x = numbers.scaled(features(space.encode(known)))
    process = GaussianProcessRegressor(numbers.covariance(), alpha=0.0, optimizer=None)
    process.fit(x, np.zeros(len(x)))
    _, deviation = process.predict(numbers.scaled(features(space.encode(asked))), return_std=True)
    return float((deviation**2).sum()) - len(asked) * numbers.others[-1]


def numbers_of(space: SearchSpace, model: AccuracyModel) -> Numbers:
    rows, top1 = model.measured
    features = features_of(space)
    return fit_process(features(rows), features.groups, top1).numbers


def test_each_is_the_one_that_leaves_least_uncertain(
    tiny_space: SearchSpace, archs: list[Arch], model: AccuracyModel, rng: np.random.Generator
) -> None:
    numbers = numbers_of(tiny_space, model)
    candidates, known = archs[20:60], archs[:20]
    chosen = choose_subnets(model, 3, candidates=candidates, rng=rng)
    for number, arch in enumerate(chosen):
        so_far = [*known, *chosen[:number]]
        left = {
            other: left_uncertain(tiny_space, numbers, [*so_far, other], candidates)
            for other in candidates
            if other not in so_far
        }
        assert left[arch] == pytest.approx(min(left.values()), rel=1e-6)
        assert left[arch] < left_uncertain(tiny_space, numbers, so_far, candidates)


def test_what_nothing_is_known_of_is_preferred(rng: np.random.Generator) -> None:
    """Of networks that are all alike but for one gene, those with the choice not seen yet."""
    space = narrow_space(depths=(1, 2, 3), kernels=(3, 5, 7), expands=(2, 4))
    drawn = space.decode(np.unique(space.sample(rng, 2_000), axis=0))
    seen = [arch for arch in drawn if arch.depths == (1,)]
    rest = [arch for arch in drawn if arch.depths == (3,)][:3]
    model = fit_accuracy(space, [*seen, *rest], [true_top1(space, a) for a in [*seen, *rest]])
    (first,) = choose_subnets(model, 1, rng=rng)
    assert first.depths != (1,)


@settings(max_examples=15)
@given(count=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), also=st.integers(0, 30))
def test_none_that_is_measured(
    tiny_space: SearchSpace,
    archs: list[Arch],
    model: AccuracyModel,
    count: int,
    seed: int,
    also: int,
) -> None:
    candidates, measured = archs[:62], archs[20 : 20 + also]
    chosen = choose_subnets(
        model,
        count,
        measured=measured,
        candidates=candidates,
        rng=np.random.default_rng(seed),
    )
    assert len(set(chosen)) == len(chosen) == count
    assert set(chosen) <= set(candidates) - set(measured) - set(archs[:20])


def test_same_generator_same_choice(model: AccuracyModel) -> None:
    def choose(seed: int) -> list[Arch]:
        return choose_subnets(model, 3, rng=np.random.default_rng(seed))

    assert choose(1) == choose(1)
    assert choose(1) != choose(2)


def test_order_of_candidates_does_not_matter(
    tiny_space: SearchSpace, archs: list[Arch], model: AccuracyModel
) -> None:
    def choose(candidates: Any) -> list[Arch]:
        return choose_subnets(model, 5, candidates=candidates, rng=np.random.default_rng(0))

    expected = choose(archs[20:80])
    assert choose(archs[20:80][::-1]) == expected
    assert choose([*archs[20:80], *archs[30:70]]) == expected
    assert choose(tiny_space.encode(archs[20:80])) == expected


def test_space_begins_with_its_ends(tiny_space: SearchSpace, rng: np.random.Generator) -> None:
    chosen = choose_subnets(tiny_space, 6, rng=rng)
    assert chosen[:2] == [tiny_space.smallest, tiny_space.largest]
    assert len(set(chosen)) == 6
    (one,) = choose_subnets(tiny_space, 1, rng=rng)
    assert one == tiny_space.smallest
    chosen = choose_subnets(tiny_space, 4, measured=[tiny_space.smallest], rng=rng)
    assert chosen[0] == tiny_space.largest
    assert tiny_space.smallest not in chosen


def test_chosen_networks_teach_more_than_drawn_ones(tiny_space: SearchSpace) -> None:
    asked = tiny_space.decode(tiny_space.sample(np.random.default_rng(5), 400))
    truth = np.array([true_top1(tiny_space, arch) for arch in asked])

    def error(model: AccuracyModel, learned: list[Arch]) -> float:
        more = refit_accuracy(model, learned, [true_top1(tiny_space, a) for a in learned])
        return float(np.sqrt(((more.predict(asked) - truth) ** 2).mean()))

    chosen, drawn = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        archs = list(dict.fromkeys(tiny_space.decode(tiny_space.sample(rng, 60))))[:30]
        known = [true_top1(tiny_space, arch) for arch in archs[:24]]
        model = fit_accuracy(tiny_space, archs[:24], known)
        candidates = tiny_space.sample(rng, 400)
        chosen.append(error(model, choose_subnets(model, 6, candidates=candidates, rng=rng)))
        drawn.append(error(model, archs[24:]))
    assert np.mean(chosen) < 0.9 * np.mean(drawn)


def test_model_for_fewer_resolutions(
    tiny_space: SearchSpace, model: AccuracyModel, rng: np.random.Generator
) -> None:
    only = tiny_space.with_resolutions(16)
    other = model.onto(only)
    chosen = choose_subnets(other, 5, rng=rng)
    assert {arch.resolution for arch in chosen} == {16}
    only.encode(chosen)
    known = set(tiny_space.decode(model.measured[0]))
    assert not known & set(chosen)
    again = refit_accuracy(other, chosen, [true_top1(tiny_space, arch) for arch in chosen])
    assert again.networks == 25
    assert not set(chosen) & set(choose_subnets(again, 5, rng=rng))


def test_small_space_is_chosen_whole(rng: np.random.Generator) -> None:
    space = narrow_space(depths=(1, 3), kernels=(3, 5))  # 2 + 8 networks
    chosen = choose_subnets(space, 10, rng=rng)
    assert len(set(chosen)) == 10
    with pytest.raises(InputError, match="expected 2 networks .* found 1 of narrow; ask for fewer"):
        choose_subnets(space, 2, measured=chosen[1:], rng=rng)
    assert choose_subnets(space, 1, measured=chosen[1:], rng=rng) == chosen[:1]


def test_space_of_one_network(rng: np.random.Generator) -> None:
    space = narrow_space()
    assert choose_subnets(space, 1, rng=rng) == [space.smallest]
    with pytest.raises(InputError, match="found 1 of narrow"):
        choose_subnets(space, 2, rng=rng)


@pytest.mark.parametrize("count", [-1, 0, 1_001])
def test_numbers_to_choose(tiny_space: SearchSpace, rng: np.random.Generator, count: int) -> None:
    with pytest.raises(InputError, match=f"expected 1 to 1000 subnets to choose, found {count}"):
        choose_subnets(tiny_space, count, rng=rng)


def test_too_few_candidates(
    archs: list[Arch], model: AccuracyModel, rng: np.random.Generator
) -> None:
    with pytest.raises(InputError, match="expected 4 networks .* found 3 candidates"):
        choose_subnets(model, 4, candidates=archs[:23], rng=rng)


def test_candidates_of_another_space(model: AccuracyModel, rng: np.random.Generator) -> None:
    stranger = narrow_space(depths=(1, 2)).largest
    with pytest.raises((InputError, MismatchError)):
        choose_subnets(model, 1, candidates=[stranger], rng=rng)


def test_nothing_given_is_changed(
    tiny_space: SearchSpace, archs: list[Arch], model: AccuracyModel, rng: np.random.Generator
) -> None:
    candidates = tiny_space.encode(archs[20:60])
    before, known = candidates.copy(), model.measured[0].copy()
    choose_subnets(model, 5, candidates=candidates, rng=rng)
    np.testing.assert_array_equal(candidates, before)
    np.testing.assert_array_equal(model.measured[0], known)
