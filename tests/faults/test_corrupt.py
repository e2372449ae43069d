"""Every format that is read, damaged in every way: refused in one line, or what the file says."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.corrupt import Tally, read_damaged
from tests.faults.corrupt_worker import FORMATS

QUICK, WHOLE = 50, 1000
# Faults that are known and not mended yet, by format; nothing else may go wrong.
KNOWN: dict[str, str] = {}


def _told(tally: Tally, name: str) -> str:
    shown = [f"  case {case}: {why}" for case, why in list(tally.faults.items())[:10]]
    again = f'python -m tests.faults.corrupt_worker "{name}" CASE 1'
    return "\n".join([f"{name}: {len(tally.faults)} of {tally.cases}; again: {again}", *shown])


@pytest.fixture(scope="module")
def quick() -> dict[str, Tally]:
    return read_damaged([(name, 0, QUICK) for name in FORMATS])


@pytest.mark.parametrize("name", FORMATS)
def test_a_few_damaged_files(quick: dict[str, Tally], name: str) -> None:
    tally = quick[name]
    assert not tally.faults, _told(tally, name)
    assert tally.cases == QUICK
    assert tally.refused > QUICK // 10 or name == "journal", "the damage does no harm"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files(name: str, amount: Callable[[int], int]) -> None:
    count = amount(WHOLE)
    tally = read_damaged([(name, QUICK, count)])[name]
    assert not tally.faults, _told(tally, name)
    assert tally.cases == count


def test_every_reader_is_damaged() -> None:
    """A new reader of files needs its format here, or a reason."""
    root = Path(__file__).resolve().parents[2] / "ofa_deploy"
    reads = re.compile(r"(?<![.\w])(read_model|read_toml|read_json|read_bytes|Journal)\(")
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if reads.search(path.read_text()) and path != root / "files" / "reading.py"
    }
    assert found <= READERS, f"damage what these read too: {sorted(found - READERS)}"


READERS = {
    "cli/_page.py",
    "files/journal.py",
    "cli/_settings.py",
    "cli/export.py",
    "cli/show.py",
    "export/as_shipped.py",
    "export/bundle.py",
    "export/manifest.py",
    "export/verify.py",
    "hardware/device.py",
    "hardware/ofa_yaml.py",
    "hardware/table.py",
    "hardware/table_csv.py",
    "predict/accuracy.py",
    "profiling/measure.py",
    "search/front_file.py",
    "space/arch_file.py",
    "space/layout.py",
    "specialize/run.py",
    "supernet/ensemble.py",
    "supernet/published.py",
    "supernet/storage.py",
    "train/checkpoint.py",
    "train/evaluation.py",
    # Fronts and CSV of other programs, drawn beside ours and never searched.
    "cli/_fronts.py",
    "report/external.py",
    # Of TensorRT: nothing of it reaches an engine without a GPU; see tests/export/test_attacks.py.
    "runtimes/tensorrt.py",
    "runtimes/trt/artefact.py",
    "runtimes/trt/recipe.py",
}
