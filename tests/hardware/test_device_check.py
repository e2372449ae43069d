"""What is held against a machine that differs from its device file."""

from dataclasses import replace
from typing import Any

import pytest

from ofa_deploy.hardware import (
    Device,
    Identity,
    Telemetry,
    check_device,
    load_device,
    power_objections,
)
from ofa_deploy.hardware.engine import PACKAGES, engine_of
from ofa_deploy.profiling.agent import engines as agent_engines
from ofa_deploy.runtimes import RUNTIMES

ORIN = Identity(
    kind="jetson",
    architecture="aarch64",
    processor="NVIDIA Jetson Orin Nano Developer Kit, 6 cores",
    cores=6,
    memory_mib=7620,
    system="Ubuntu 22.04.5 LTS, L4T 36.4.3",
    python="3.10.12",
)
STATE = {"power_mode": "15W", "jetson_clocks": "on", "clocks": "fixed"}
GOOD = Telemetry(temperatures_c={"tj": 48.2}, state=STATE)


def device(**changes: Any) -> Device:
    kind = load_device("jetson-orin-nano").model_dump(by_alias=True)
    return Device.model_validate(kind | changes)


def test_nothing_is_held_against_a_good_one() -> None:
    limits = {"memory_mib": 7000, "temperature_c": 85}
    power = {"modes": ["15W"], "mode": "15W", "clocks": "fixed"}
    assert check_device(device(cores=[5], limits=limits, power=power), ORIN, GOOD) == []


@pytest.mark.parametrize(
    ("changes", "identity", "telemetry", "error", "what"),
    [
        (
            {"kind": "raspberry-pi"},
            {},
            GOOD,
            True,
            "expected a device of kind raspberry-pi, found jets",
        ),
        ({}, {"kind": "cpu"}, GOOD, True, "expected a device of kind jetson, found cpu"),
        ({}, {"architecture": "x86_64"}, GOOD, True, "processor of aarch64, found x86_64"),
        ({}, {"python": "3.6.9"}, GOOD, True, "expected Python 3.8 or later, found 3.6.9"),
        ({"cores": [2, 6]}, {}, GOOD, True, "there is no core 6: it has 6"),
        ({"limits": {"memory_mib": 9000}}, {}, GOOD, False, "allows 9000 MiB, but it has 7620"),
        (
            {"power": {"modes": ["15W", "7W"], "mode": "7W"}},
            {},
            GOOD,
            True,
            "expected power mode 7W, found 15W; set it there with: sudo nvpmodel",
        ),
        ({"power": {"modes": ["7W"]}}, {}, GOOD, False, "power mode 15W does not stand in"),
        (
            {},
            {},
            replace(GOOD, state={**STATE, "clocks": "free"}),
            True,
            "expected fixed clocks, found free; fix them there with: sudo jetson_clocks",
        ),
        (
            {},
            {},
            Telemetry(temperatures_c={"tj": 91.5}, state=STATE),
            False,
            "91.5 °C, above the limit of 85",
        ),
        (
            {},
            {},
            replace(GOOD, throttled=("over-current",)),
            False,
            "its clocks are held down: over-current",
        ),
        (
            {"limits": {"temperature_c": 85}},
            {},
            Telemetry(state=STATE),
            False,
            "nothing tells how hot it is: its limit of 85 °C holds nothing up",
        ),
        (
            {"kind": "gpu"},
            {"kind": "gpu"},
            replace(GOOD, state={"gpu": "H100"}),
            True,
            "expected fixed clocks, found unknown; a GPU's cannot be seen",
        ),
    ],
)
def test_what_differs_is_named(
    changes: dict[str, Any], identity: dict[str, Any], telemetry: Telemetry, error: bool, what: str
) -> None:
    (found,) = check_device(device(**changes), replace(ORIN, **identity), telemetry)
    assert found.error is error
    assert what in found.what
    assert "\n" not in found.what


def test_unsupported_device_is_an_error() -> None:
    nano = replace(ORIN, python="3.8.0")
    found = check_device(load_device("jetson-nano"), nano, replace(GOOD, state={}))
    assert [item.error for item in found] == [True]
    assert "Python 3.6" in found[0].what


def test_every_machine_has_a_processor() -> None:
    assert check_device(load_device("cpu-arm"), ORIN, GOOD) == []
    assert check_device(load_device("ssh://orin"), ORIN, Telemetry()) == []


def test_mode_that_is_not_told_is_not_the_right_one() -> None:
    wanted = device(power={"modes": ["15W"], "mode": "15W"})
    (found,) = check_device(wanted, ORIN, replace(GOOD, state={"clocks": "fixed"}))
    assert found.error
    assert "found none told" in found.what
    assert "sudo nvpmodel -p --verbose lists them" in found.what


@pytest.mark.parametrize(
    ("engines", "error", "what"),
    [
        (["tensorrt", "onnxruntime"], None, ""),
        (["onnxruntime"], False, "its Python 3.10.12 has no tensorrt"),
        ([], True, "expected one of tensorrt, onnxruntime, found no engine in its Python 3.10.12"),
        (["openvino"], True, "expected one of tensorrt, onnxruntime, found openvino in"),
    ],
)
def test_engines_that_it_lacks(engines: list[str], error: bool | None, what: str) -> None:
    wanted = device(runtimes=["tensorrt", "onnxruntime"])
    found = check_device(wanted, ORIN, GOOD, engines=engines)
    assert [item.error for item in found] == ([] if error is None else [error])
    assert all(what in item.what for item in found)


def test_providers_of_onnx_runtime_are_one_engine() -> None:
    wanted = device(runtimes=["onnxruntime-cuda"])
    assert check_device(wanted, ORIN, GOOD, engines=["onnxruntime"]) == []
    assert check_device(wanted, ORIN, GOOD, engines=["tensorrt"])


def test_a_busy_machine_is_told() -> None:
    (found,) = check_device(device(), ORIN, GOOD, load=3.5)
    assert (found.error, found.what) == (False, "busy: 3.5 processes want its 6 cores")
    assert check_device(device(), ORIN, GOOD, load=3.0) == []


def test_power_alone_can_be_checked() -> None:
    hot = replace(GOOD, temperatures_c={"tj": 99.0}, throttled=("too hot",))
    assert power_objections(device(), hot) == []
    free = replace(hot, state={"clocks": "free"})
    assert [item.error for item in power_objections(device(), free)] == [True]


def test_engines_have_the_names_by_which_they_are_found() -> None:
    """By one rule, here and in what looks for them."""
    assert agent_engines.engine_of is engine_of
    assert {engine_of(name) for name in RUNTIMES} == set(PACKAGES)
    gpu = device(runtimes=["onnxruntime-cuda", "tensorrt-rtx"])
    assert check_device(gpu, ORIN, GOOD, engines=["onnxruntime", "tensorrt-rtx"]) == []
