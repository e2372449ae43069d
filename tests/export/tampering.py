"""Bundles changed by somebody who means harm: the manifest, and files with their hashes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Edit", "edited", "renew"]

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
