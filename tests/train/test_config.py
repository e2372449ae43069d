"""Settings are checked where they are built."""

import pytest
from pydantic import TypeAdapter, ValidationError

from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.train import METHODS, DepsConfig, ImportConfig, build_config
from ofa_deploy.train.config import AnyConfig


def test_defaults_are_valid_and_survive_json() -> None:
    config = DepsConfig.build()
    assert config == DepsConfig()
    assert DepsConfig.model_validate_json(config.model_dump_json()) == config


def test_build_takes_settings() -> None:
    config = DepsConfig.build(epochs=30, ramp_end=20, ramp_epochs=20, lr_min=0)
    assert (config.epochs, config.ramp_end, config.ramp_epochs) == (30, 20, 20)
    assert config.lr_min == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("batch", 1),
        ("lr", 0),
        ("lr", -0.1),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("lr_min", -1e-3),
        ("momentum", 1),
        ("weight_decay", -1e-5),
        ("label_smoothing", 1),
        ("dropout", 1),
        ("dropout", -0.1),
        ("random_subnets", -1),
        ("augment", "mixup"),
        ("calibration", 0),
        ("seed", -1),
        ("seed", 2**31),
        ("threads", 0),
        ("method", "ofa"),
        ("learning_rate", 0.1),
    ],
    ids=str,
)
def test_bad_setting_is_named_in_one_line(setting: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^training settings: {setting}: [^\n]+$"):
        DepsConfig.build(**{setting: value})


@pytest.mark.parametrize(
    ("epochs", "ramp_end", "ramp_epochs"),
    [(8, 8, 1), (8, 9, 1), (8, 3, 4)],
    ids=["no epoch after the ramp", "ramp past the end", "ramp before the start"],
)
def test_phases_must_follow_one_another(epochs: int, ramp_end: int, ramp_epochs: int) -> None:
    expected = (
        "training settings: expected ramp_epochs <= ramp_end < epochs, "
        f"found {ramp_epochs}, {ramp_end}, {epochs}"
    )
    with pytest.raises(InputError) as caught:
        DepsConfig.build(epochs=epochs, ramp_end=ramp_end, ramp_epochs=ramp_epochs)
    assert str(caught.value) == expected


def test_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DepsConfig().lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("epochs", "ramp_end", "ramp_epochs"), [(2, 1, 1), (8, 5, 1), (30, 18, 3), (270, 162, 27)]
)
def test_ramp_keeps_its_share_of_the_epochs(epochs: int, ramp_end: int, ramp_epochs: int) -> None:
    config = DepsConfig.build(epochs=epochs)
    assert (config.ramp_end, config.ramp_epochs) == (ramp_end, ramp_epochs)
    given = DepsConfig.build(epochs=30, ramp_end=20)
    assert (given.ramp_end, given.ramp_epochs) == (20, 3)
    assert DepsConfig.build(epochs=30, ramp_end=None) == DepsConfig.build(epochs=30)


def test_what_was_written_down_is_not_derived_again() -> None:
    config: dict[str, object] = DepsConfig(epochs=30, ramp_end=20).model_dump()
    assert DepsConfig.model_validate(config).ramp_end == 20
    with pytest.raises(ValidationError, match="ramp_end"):
        DepsConfig.model_validate(config | {"ramp_end": None})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_survives_json_under_its_name(method: str) -> None:
    config = build_config(method, batch=7, precision="bf16")
    assert (config.method, config.batch, config.precision) == (method, 7, "bf16")
    any_config: TypeAdapter[AnyConfig] = TypeAdapter(AnyConfig)
    found = any_config.validate_json(config.model_dump_json())
    assert (type(found), found) == (type(config), config)
    imported = ImportConfig(init_sha256="0" * 64)
    assert any_config.validate_json(imported.model_dump_json()) == imported


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [
        ("bignas", "decay", 1.0),
        ("bignas", "lr_floor", 0.0),
        ("bignas", "ramp_end", 3),
        ("progressive", "epochs", 3),
        ("progressive", "teacher_epochs", -1),
        ("progressive", "kernel_lr", 0.0),
        ("compofa", "subnets", 0),
        ("compofa", "kd_ratio", -1.0),
        ("deps", "processes", 0),
        ("deps", "divergence", "kl"),
        ("deps", "optimizer", "adam"),
        ("deps", "augment", "crop+crop"),
        ("deps", "precision", "fp16"),
    ],
)
def test_bad_setting_of_a_method_is_named(method: str, setting: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^training settings: {setting}: [^\n]+$"):
        build_config(method, **{setting: value})


def test_unknown_method_is_refused_with_what_is_near() -> None:
    with pytest.raises(UnknownNameError, match="method 'big-nas'.*bignas"):
        build_config("big-nas")


def test_setting_that_a_method_does_not_have_is_answered_with_those_it_has() -> None:
    with pytest.raises(InputError) as caught:
        build_config("bignas", ramp_end=3)
    message = str(caught.value)
    assert "method bignas has no setting ramp_end; it has augment, batch, " in message
    assert "lr_floor" in message and "ramp_epochs" not in message


@pytest.mark.parametrize("name", ["cls", "self", "method"])
def test_settings_named_as_arguments_are_settings(name: str) -> None:
    with pytest.raises(InputError, match=f"training settings: {name}"):
        DepsConfig.build(**{name: 1})
