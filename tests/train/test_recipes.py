"""Recipes: the published numbers, and the same proportions elsewhere."""

import pytest

from ofa_deploy.errors import UnknownNameError
from ofa_deploy.space import get_space
from ofa_deploy.train import (
    METHODS,
    BigNasConfig,
    CompOfaConfig,
    DepsConfig,
    ProgressiveConfig,
    get_recipe,
    plan_for,
    recipe_names,
)
from ofa_deploy.train.config import build_config
from tests.train.runs import lr_at

DATA = ("glyphs", "images", "cifar10", "cifar100", "imagenet100", "imagenet")
NAMES = recipe_names()


def epochs(name: str, space: str = "ofa-mbv3-w1.0") -> float:
    """Of the whole plan, in a space where everything is elastic."""
    return plan_for(get_recipe(name).config, get_space(space), 10).steps / 10


def test_every_method_has_a_recipe_for_every_data() -> None:
    assert set(NAMES) == {f"{m}-{d}" for m in (*METHODS, "alphanet") for d in DATA}
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_parses_and_plans(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    method, _, data = name.partition("-")
    assert recipe.config.method == {"alphanet": "bignas"}.get(method, method)
    assert recipe.data in (data, "")
    assert recipe.images_a_step % recipe.config.batch == 0
    plan = plan_for(recipe.config, get_space(recipe.space), 10)
    assert plan.steps > 0
    assert max(lr_at(plan, step) for step in range(0, plan.steps, 10)) == recipe.config.lr
    rebuilt = build_config(**recipe.config.model_dump())
    assert rebuilt == recipe.config


def test_published_deps() -> None:
    config = get_recipe("deps-imagenet").config
    assert isinstance(config, DepsConfig)
    assert (config.epochs, config.ramp_end, config.ramp_epochs) == (270, 150, 5)
    assert (config.lr, config.momentum, config.weight_decay) == (2.6, 0.9, 3e-5)
    assert (config.label_smoothing, config.dropout, config.random_subnets) == (0.1, 0.1, 2)
    assert set(config.augment.split("+")) == {"rrc", "flip", "autoaugment", "jitter", "erase"}
    recipe = get_recipe("deps-imagenet")
    assert (recipe.space, recipe.images_a_step) == ("deps-mbv3", 2_048)
    plan = plan_for(config, get_space(recipe.space), 625)
    assert lr_at(plan, plan.steps - 1) == pytest.approx(2.5e-3, rel=1e-12)


def test_published_lengths_of_the_baselines() -> None:
    assert epochs("progressive-imagenet") == 605
    assert epochs("compofa-imagenet", "deps-mbv3") == 330
    assert epochs("bignas-imagenet") == epochs("alphanet-imagenet") == 400
    config = get_recipe("progressive-imagenet").config
    assert isinstance(config, ProgressiveConfig)
    assert (config.teacher_epochs, config.kernel_epochs, config.warmup_epochs) == (180, 120, 5)
    assert config.depth_epochs == config.expand_epochs == (25, 120)
    compofa = get_recipe("compofa-imagenet").config
    assert isinstance(compofa, CompOfaConfig)
    assert (compofa.teacher_epochs, compofa.phase_epochs) == (180, (25, 120))


def test_published_sandwiches() -> None:
    bignas, alphanet = (get_recipe(f"{name}-imagenet").config for name in ("bignas", "alphanet"))
    assert isinstance(bignas, BigNasConfig)
    assert (bignas.lr_floor, bignas.zero_gamma, bignas.random_subnets) == (0.05, True, 2)
    assert (bignas.divergence, alphanet.divergence) == ("cross-entropy", "alpha")
    different = {"divergence"}
    assert bignas.model_dump(exclude=different) == alphanet.model_dump(exclude=different)
    plan = plan_for(bignas, get_space("deps-mbv3"), 10)
    # 0.97 every 2.4 epochs; log 0.05 / log 0.97 · 2.4 = 236 epochs to the floor.
    assert lr_at(plan, 24) / lr_at(plan, 0) == pytest.approx(0.97, rel=1e-12)
    assert lr_at(plan, 2_350) > lr_at(plan, 2_370) == lr_at(plan, 3_999)


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_cifar_keeps_the_proportions(data: str) -> None:
    recipe = get_recipe(f"deps-{data}")
    config = recipe.config
    assert isinstance(config, DepsConfig)
    assert (config.epochs, config.lr, config.augment) == (200, 0.1, "crop+flip")
    assert (config.ramp_end, config.ramp_epochs) == (111, 4)  # 150 and 5 of 270
    assert (recipe.space, recipe.data) == ("deps-mbv3-32", data)
    lengths = {m: epochs(f"{m}-{data}", "ofa-mbv3-w1.0") for m in ("progressive", "bignas")}
    assert lengths == {
        "progressive": pytest.approx(605 * 200 / 270, abs=4),
        "bignas": pytest.approx(400 * 200 / 270, abs=1),
    }


def test_quickstart_settings_are_the_defaults() -> None:
    config = get_recipe("deps-glyphs").config
    assert isinstance(config, DepsConfig)
    assert (config.epochs, config.batch, config.lr) == (8, 64, 0.1)
    assert config.ramp_end - config.ramp_epochs >= config.epochs // 3


def test_scale_lengthens_every_phase() -> None:
    short, long = (get_recipe("progressive-glyphs", scale=s).config for s in (1.0, 3.0))
    assert isinstance(short, ProgressiveConfig) and isinstance(long, ProgressiveConfig)
    assert (short.teacher_epochs, long.teacher_epochs) == (5, 16)
    assert (short.expand_epochs, long.expand_epochs) == ((1, 4), (2, 11))


@pytest.mark.parametrize(
    ("name", "near"),
    [("deps-cifar", "deps-cifar10"), ("ofa-imagenet", "METHOD-DATA"), ("", "METHOD-DATA")],
)
def test_unknown_recipe_is_refused_with_what_is_near(name: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match="recipe") as caught:
        get_recipe(name)
    assert near in str(caught.value) and "\n" not in str(caught.value)


def test_other_epochs_keep_the_proportions_of_the_ramp() -> None:
    imagenet = get_recipe("deps-imagenet")
    assert imagenet.ramp(270) == {"ramp_end": 150, "ramp_epochs": 5}
    assert imagenet.ramp(540) == {"ramp_end": 300, "ramp_epochs": 10}
    assert get_recipe("deps-cifar10").ramp(100) == {"ramp_end": 56, "ramp_epochs": 2}
    # Where an epoch is a large share of the run, and where there is no ramp at all.
    assert imagenet.ramp(20) == get_recipe("deps-glyphs").ramp(20) == {}
    assert get_recipe("bignas-imagenet").ramp(270) == {}
