"""Packages that only some need."""

import importlib
from types import ModuleType

from ofa_deploy.errors import MissingDependencyError

__all__ = ["optional_import"]


def optional_import(module: str, *, extra: str) -> ModuleType:
    """Import an optional package.

    Raises:
        MissingDependencyError: naming the pip extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module} is not installed ({error}); run: pip install 'ofa-deploy[{extra}]'"
        ) from None
