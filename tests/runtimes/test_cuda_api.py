"""Calls of the CUDA driver, and its stand-in, are held to what its header says."""

import ctypes
import json
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.runtimes.trt import cuda
from tests.runtimes.cuda_fake import FakeCudaLibrary

RECORDED: dict[str, dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("cuda_api.json").read_text()
)
_NUMBERS = {ctypes.c_int: "i32", ctypes.c_uint: "u32", ctypes.c_uint64: "u64"}


def kinds(arguments: tuple[Any, ...]) -> list[str]:
    return [_NUMBERS.get(each, "pointer") for each in arguments]


def in_header(name: str) -> list[list[str]]:
    """What each header says of a function, under its later name where it has one."""
    later = cuda._LATER.get(name, name)
    return [api.get(name) or api[later] for api in RECORDED.values()]


def test_two_generations_were_recorded() -> None:
    assert [version.partition(".")[0] for version in RECORDED] == ["12", "13"]


@pytest.mark.parametrize("name", cuda._SIGNATURES)
def test_calls_are_what_the_header_says(name: str) -> None:
    for said in in_header(name):
        assert kinds(cuda._SIGNATURES[name]) == said


@pytest.mark.parametrize("name", cuda._SIGNATURES)
def test_the_stand_in_is_called_as_the_header_says(name: str) -> None:
    function = getattr(FakeCudaLibrary(), name)
    for said in in_header(name):
        assert kinds(type(function)._argtypes_) == said


def test_a_number_of_the_wrong_size_would_be_seen() -> None:
    assert kinds((ctypes.c_uint, ctypes.c_void_p)) != kinds((ctypes.c_size_t, ctypes.c_void_p))
    assert kinds((ctypes.c_size_t,)) == kinds((ctypes.c_ulonglong,)) == ["u64"]
