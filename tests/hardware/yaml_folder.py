"""Once-for-all's tables in a folder: read, and edited before that."""

import re
from pathlib import Path
from typing import Any

from ofa_deploy import import_tables
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.space import SearchSpace


def read(folder: Path, space: SearchSpace, **options: Any) -> LatencyTable:
    return import_tables("ofa-yaml", folder, space=space, device="note", **options)


def only(folder: Path) -> Path:
    """The folder with the larger resolution's file only."""
    (folder / "12_lookup_table.yaml").unlink()
    return folder / "16_lookup_table.yaml"


def edited(file: Path, old: str, new: str) -> Path:
    """The file with the first match of a regular expression replaced."""
    text = file.read_text()
    changed = re.sub(old, new, text, count=1, flags=re.MULTILINE)
    assert changed != text
    file.write_text(changed)
    return file
