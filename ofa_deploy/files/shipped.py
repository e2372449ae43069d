"""Where the files that ship with the package lie, in a source checkout and in a wheel."""

from pathlib import Path

__all__ = ["shipped"]


def shipped(name: str) -> Path:
    """The folder ``devices`` or ``latency_tables``; it may not exist."""
    package = Path(__file__).resolve().parents[1]
    installed = package / f"_{name}"
    return installed if installed.is_dir() else package.parent / name
