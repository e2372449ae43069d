"""Coverage-guided fuzzing of the parsers, with atheris (``pip install 'ofa-deploy[fuzz]'``).

    python -m tests.faults.fuzz_targets FORMAT SECONDS [FOLDER]

Every format of ``tests/faults`` is a target: bytes become its file, and its oracle judges what is
read. The corpus begins with the valid file and damaged ones of the suite, and is kept in FOLDER
between runs. Without atheris, the same oracle is fed by hypothesis. An input that is a fault is
printed and kept as ``FOLDER/fault-...``.
"""

import hashlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.corrupt_worker import _put, all_formats, verdict
from tests.faults.formats import Format

__all__ = ["fuzz"]

_SEEDS = 200
_LONGEST = 2**16


def _target(form: Format, folder: Path, kept: Path) -> Callable[[bytes], None]:
    """Reads one input; raises if that is a fault."""

    def read(data: bytes) -> None:
        path = folder / form.file
        path.write_bytes(data)
        if (found := verdict(form, folder, "fuzz")) not in ("refused", "accepted"):
            name = f"fault-{hashlib.sha256(data).hexdigest()[:16]}"
            (kept / name).write_bytes(data)
            raise AssertionError(f"{form.name}: {found}; kept as {kept / name}")

    return read


def _seeds(form: Format, corpus: Path) -> None:
    """The valid file, and damaged ones."""
    valid = form.files[form.file]
    (corpus / "valid").write_bytes(valid)
    for number in range(_SEEDS):
        draw = random.Random(f"{form.name}/seed/{number}")
        way = draw.choice(sorted(form.ways))
        data = form.ways[way](valid, draw)
        if len(data) <= _LONGEST:
            (corpus / f"seed-{number}").write_bytes(data)


def fuzz(name: str, seconds: int, kept: Path) -> None:
    """Fuzz one format."""
    corpus = kept / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    try:
        import atheris
    except ImportError:
        form = all_formats()[name]()
        _by_hypothesis(form, seconds, kept)
        return
    with atheris.instrument_imports(include=["ofa_deploy"]):
        # What instruments comes before what is instrumented.
        for module in [each for each in sys.modules if each.startswith("ofa_deploy")]:
            del sys.modules[module]
        for module in [each for each in sys.modules if each.startswith("tests.")]:
            del sys.modules[module]
        from tests.faults import corrupt_worker, fuzz_targets

        form = corrupt_worker.all_formats()[name]()
        folder = Path(tempfile.mkdtemp(prefix="ofa-deploy-fuzz-"))
        corrupt_worker._put(folder, form)
        form.read(folder)  # imports what it imports
        fuzz_targets._seeds(form, corpus)
    options = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        "-timeout=20",
        "-rss_limit_mb=3072",
        f"-artifact_prefix={kept}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup(options, fuzz_targets._target(form, folder, kept))
    atheris.Fuzz()


def _by_hypothesis(form: Format, seconds: int, kept: Path) -> None:
    """Without coverage: mutations of mutations, as long as there is time."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    folder = Path(tempfile.mkdtemp(prefix="ofa-deploy-fuzz-"))
    _put(folder, form)
    read, end, tried = _target(form, folder, kept), time.monotonic() + seconds, 0

    @settings(
        max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.integers(0, 2**63), st.sampled_from(sorted(form.ways)), st.integers(0, 3))
    def once(number: int, way: str, more: int) -> None:
        nonlocal tried
        draw = random.Random(number)
        data = form.ways[way](form.files[form.file], draw)
        for _ in range(more):
            data = form.ways["bytes"](data, draw)
        read(data)
        tried += 1

    try:
        while time.monotonic() < end:
            once()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{form.name}: {tried} inputs without coverage (atheris is not installed)")


def main() -> None:
    names = tuple(all_formats())
    if len(sys.argv) < 3 or sys.argv[1] not in names or not sys.argv[2].isdecimal():
        sys.exit(f"usage: {sys.argv[0]} FORMAT SECONDS [FOLDER]; formats: {', '.join(names)}")
    name, seconds = sys.argv[1], int(sys.argv[2])
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else "runs/fuzz") / name.replace(" ", "-")
    fuzz(name, seconds, folder)


if __name__ == "__main__":
    main()
