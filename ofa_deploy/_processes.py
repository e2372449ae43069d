"""Processes of this interpreter that run a module of this package, wherever it was found."""

import os
import sys
from collections.abc import Mapping

__all__ = ["module_command", "module_environment"]


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module such as ``ofa_deploy.profiling.worker``."""
    return [sys.executable, "-m", module, *arguments]


def module_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment for it: this one's, the same modules to be found, and some variables."""
    path = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": path, **variables}
