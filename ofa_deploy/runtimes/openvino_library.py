"""OpenVINO's modules; its core, one for the whole process; what other cores would leave behind.

On Linux the CPU plugin gives the thread that makes a core a stack for signals of its own, and frees
it with the core. When several cores end in another order than they began, the thread keeps a stack
that is gone, and the next signal with a handler kills the process, Ctrl-C for one (seen with
OpenVINO 2026.4.1).
"""

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ofa_deploy.runtimes.base import check_least
from ofa_deploy.system import optional_import

__all__ = ["core", "nncf", "nncf_version", "openvino", "signal_stack_kept"]

_LEAST, _LEAST_NNCF = "2025.0", "3.0"


def openvino() -> Any:
    """The engine's module.

    Raises:
        MissingDependencyError: if it is not installed, or too old.
    """
    return _module("openvino", _LEAST)


def nncf() -> Any:
    """The module that quantises; raises as ``openvino`` does."""
    return _module("nncf", _LEAST_NNCF)


def _module(name: str, least: str) -> Any:
    """Both would tell their makers of each use, by a package that they can do without."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not to be had
    module = optional_import(name, extra="openvino")
    check_least(name, module.__version__, least, extra="openvino")
    return module


def nncf_version() -> str:
    """The version of NNCF; raises as ``nncf`` does."""
    return str(nncf().__version__)


def core() -> Any:
    """The process's only core of ours; it never ends."""
    return _core(openvino())


@functools.cache
def _core(module: Any) -> Any:
    return module.Core()


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = (
        ("ss_sp", ctypes.c_void_p),
        ("ss_flags", ctypes.c_int),
        ("ss_size", ctypes.c_size_t),
    )


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give this thread its stack for signals back, whatever cores others make and end within."""
    if sys.platform != "linux":
        yield
        return
    core()  # its stack is the one to keep
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
