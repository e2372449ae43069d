"""Versions of what ofa_deploy computes with, read without loading any of it."""

import platform
from importlib import metadata

from ofa_deploy import __version__
from ofa_deploy.hardware.engine import PACKAGES

__all__ = ["engine_versions", "version_text"]

# What it is called, and the distributions that bring it; the first that is installed counts.
_DISTRIBUTIONS = {
    "torch": ("torch",),
    "onnx": ("onnx",),
    **PACKAGES,
    "nncf": ("nncf",),
}


def engine_versions() -> dict[str, str]:
    """Version by name, Python's first; empty where a library is not installed."""
    found = {"python": platform.python_version()}
    for name, distributions in _DISTRIBUTIONS.items():
        installed = (_installed(distribution) for distribution in distributions)
        found[name] = next((version for version in installed if version), "")
    return found


def _installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def version_text() -> str:
    """Of the package, on a line of its own, then of each library."""
    lines = [f"ofa-deploy {__version__}"]
    for name, version in engine_versions().items():
        lines.append(f"  {name:<13} {version or 'not installed'}")
    return "\n".join(lines)
