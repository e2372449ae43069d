"""Settings are checked where they are built."""

import pytest
from pydantic import ValidationError

from ofa_deploy.errors import InputError
from ofa_deploy.train import DepsConfig


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
