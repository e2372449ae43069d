"""Processes of this interpreter that run a module of this package, wherever it was found."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping

__all__ = ["end_with_parent", "module_command", "module_environment"]


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module such as ``ofa_deploy.profiling.worker``."""
    return [sys.executable, "-m", module, *arguments]


def module_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment for it: this one's, the same modules to be found, and some variables."""
    path = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": path, **variables}


def end_with_parent() -> None:
    """End this process of a pool as soon as the one that started it is gone.

    A pool's own processes wait for more work for ever when the one that gives it is killed: each
    holds the other end of their queue open.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a process of multiprocessing"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="ends with its parent", daemon=True).start()
