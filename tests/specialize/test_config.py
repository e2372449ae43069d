"""Settings are checked where they are built; recipes give every method settings for every data."""

import pytest

from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.space import get_space
from ofa_deploy.specialize import (
    METHODS,
    DstConfig,
    EdstConfig,
    FinetuneConfig,
    WideNarrowConfig,
    build_specialize_config,
    forecast_macs,
    recipe_data,
    specialize_recipe,
    specialize_recipes,
)

DATA = ("glyphs", "images", "cifar", "imagenet")
NANO = get_space("mbv3-nano-32")


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("finetune", {"epochs": 0}, "epochs: expected more than 0, found 0"),
        ("finetune", {"kd_ratio": 1.0}, "finetune learns from labels; for a parent's use the"),
        ("finetune", {"sparsity": 0.5}, "method finetune has no setting sparsity; it has augment"),
        ("distill", {"kd_ratio": 0.0}, "kd_ratio: expected more than 0, found 0.0"),
        ("finetune", {"members": 65}, "members: expected at most 64, found 65"),
        ("wide-narrow", {"imitate_epochs": []}, "imitate_epochs: expected at least 1 entries"),
        (
            "wide-narrow",
            {"imitate_epochs": [-1]},
            "imitate_epochs.0: expected at least 0, found -1",
        ),
        ("wide-narrow", {"start": "random"}, "start: expected a list, found 'random'"),
        ("wide-narrow", {"label_epochs": 0}, "label_epochs: expected more than 0"),
        ("dst", {"sparsity": 1.0}, "sparsity: expected less than 1"),
        ("dst", {"update_until": 1.0}, "update_until: expected less than 1"),
        ("dst", {"update_steps": 0}, "update_steps: expected at least 1"),
        ("dst", {"dense": ["head"]}, "dense.0: expected 'depthwise'"),
        ("edst", {"regrow": 1.0}, "regrow: expected less than 1"),
        ("edst", {"rates": [0.1, 0]}, "rates.1: expected more than 0"),
        ("edst", {"lr": float("nan")}, "lr: expected"),
    ],
)
def test_wrong_settings_are_one_line(
    method: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        build_specialize_config(method, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_methods_are_named() -> None:
    with pytest.raises(UnknownNameError, match="unknown method 'wide'; did you mean wide-narrow"):
        build_specialize_config("wide")
    with pytest.raises(UnknownNameError, match="unknown method 'prune'"):
        specialize_recipe("prune", "glyphs")
    with pytest.raises(UnknownNameError, match="unknown recipe 'dst-glyph'; did you mean dst-glyp"):
        specialize_recipe("dst", "glyph")


def test_who_needs_a_parent() -> None:
    assert not build_specialize_config("finetune").needs_parent
    assert build_specialize_config("distill").needs_parent
    assert build_specialize_config("wide-narrow").needs_parent
    assert not build_specialize_config("dst").needs_parent
    assert build_specialize_config("edst", kd_ratio=0.5).needs_parent


def test_every_method_has_a_recipe_for_every_data() -> None:
    assert set(specialize_recipes()) == {f"{m}-{d}" for m in METHODS for d in DATA}
    for name in specialize_recipes():
        method, data = name.rsplit("-", 1)
        config = specialize_recipe(method, data)
        assert config.method == method
        rebuilt = build_specialize_config(**config.model_dump())
        assert rebuilt == config


def test_recipes_follow_the_data() -> None:
    assert [recipe_data(name) for name in ("glyphs", "cifar10", "cifar100", "/my/photos")] == [
        *("glyphs", "cifar", "cifar", "images")
    ]


def test_scale_stretches_all_lengths() -> None:
    once, twice = (specialize_recipe("wide-narrow", "glyphs", scale=s) for s in (1.0, 2.0))
    assert isinstance(once, WideNarrowConfig) and isinstance(twice, WideNarrowConfig)
    for name in ("output_epochs", "label_epochs"):
        assert getattr(twice, name) == pytest.approx(2 * getattr(once, name))
    assert twice.imitate_epochs[0] == pytest.approx(2 * once.imitate_epochs[0])


def test_settings_go_over_the_recipes() -> None:
    config = specialize_recipe("dst", "glyphs", sparsity=0.9, seed=4)
    assert isinstance(config, DstConfig)
    assert (config.sparsity, config.seed, config.members) == (0.9, 4, 3)


def test_published_numbers_of_imitation() -> None:
    config = specialize_recipe("wide-narrow", "imagenet")
    assert isinstance(config, WideNarrowConfig)
    assert (config.imitate_epochs, config.imitate_lr, config.lr) == ((10,), (1,), 0.1)
    assert config.output_epochs == 50


def test_published_numbers_of_tickets() -> None:
    config = specialize_recipe("edst", "imagenet", scale=450 / 90)
    assert isinstance(config, EdstConfig)
    assert (config.explore_epochs, config.refine_epochs) == pytest.approx((150, 100))
    assert (config.sparsity, config.regrow, config.members) == (0.8, 0.8, 3)
    assert config.drop_rate == 0.5
    assert [share * config.lr for share in (1, *config.rates)] == pytest.approx([0.1, 0.01, 0.001])


def test_ensembles_of_a_recipe_take_as_many_epochs_as_one_network() -> None:
    """Whatever the method, the same passes over the images: compare at equal cost."""
    whole = specialize_recipe("finetune", "glyphs")
    assert isinstance(whole, FinetuneConfig)

    def macs(method: str) -> float:
        config = specialize_recipe(method, "glyphs")
        parent = (NANO, NANO.largest) if config.needs_parent else None
        phases = forecast_macs(config, NANO, NANO.smallest, 125, parent)
        return sum(each.macs.dense for each in phases)

    assert macs("dst") == pytest.approx(macs("finetune"), rel=0.01)
    assert macs("edst") == pytest.approx(macs("finetune"), rel=0.01)
