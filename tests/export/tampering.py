"""Bundles changed by somebody who means harm, and what is left of folders."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Edit", "edited", "renew", "tree"]

Edit = Callable[[dict[str, Any]], object]


def edited(folder: Path, edit: Edit) -> None:
    path = folder / "manifest.json"
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def renew(folder: Path, name: str, data: bytes) -> None:
    """Change a file and its hash with it."""
    (folder / name).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    edited(folder, lambda value: value["files"].update({name: sha256}))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
