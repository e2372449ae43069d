"""Commands as a user types them, on a machine whose timings are exact."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ofa_deploy.cli.main import app
from ofa_deploy.predict import AccuracyModel, fit_accuracy
from ofa_deploy.profiling import Protocol
from ofa_deploy.search import evolution
from ofa_deploy.space import get_space

ROOT = Path(__file__).resolve().parents[2]
bundle_module: Any = importlib.import_module("ofa_deploy.export.bundle")
TIME_FILES = bundle_module.time_files
WORKER = "ofa_deploy.profiling.worker"
REAL = subprocess.Popen

# A measuring process whose models take a time that only their size decides: much like real ones,
# whole networks take a little more or less than the sum of their blocks.
EXACT = """
import json, math, os, sys
job = json.load(sys.stdin)
def times(model):
    size = os.path.getsize(model["path"])
    ms = 0.01 + size * 1e-6 * (1 + 0.03 * math.sin(size))
    return {"p10": ms, "p50": 1.1 * ms, "p90": 1.2 * ms, "p99": 1.3 * ms, "runs": 400}
own = times(job["models"][job["reference"]])
result = {"": {**own, "ratio": 1.0}}
for name, model in job["models"].items():
    if name != job["reference"]:
        taken = times(model)
        result[name] = {**taken, "ratio": taken["p10"] / own["p10"]}
print(json.dumps({"rounds": job["protocol"]["rounds"]}))
print(json.dumps({"result": result, "windows": 1, "rejected": 0}))
"""


@dataclass
class Workers:
    """Measuring processes.

    Attributes:
        script: of Python, run instead of each.
        started: so many were.
    """

    script: str = EXACT
    started: int = 0

    def popen(self, command: Any, **options: Any) -> "subprocess.Popen[Any]":
        if WORKER not in command:
            return REAL(command, **options)
        self.started += 1
        return REAL([sys.executable, "-I", "-S", "-c", self.script], **options)


@dataclass(frozen=True)
class Result:
    """What a command said and how it ended."""

    code: int
    stdout: str
    stderr: str

    def error(self, code: int) -> str:
        """Its one-line error message; it must have ended with ``code``."""
        assert self.code == code, self.stderr
        assert "Traceback" not in self.stdout + self.stderr
        said = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(said) == 1, self.stderr
        assert self.stderr.splitlines()[-1] == said[0]
        return said[0]


def in_process(*args: object) -> Result:
    """Run a command in this process."""
    made = CliRunner().invoke(app, [str(arg) for arg in args])
    if made.exception is not None and not isinstance(made.exception, SystemExit):
        raise made.exception
    return Result(made.exit_code, made.stdout, made.stderr)


def start(*args: object, cwd: Path) -> "subprocess.Popen[str]":
    """Start a command as a user does; what it says is kept until it ends."""
    inherited = [ROOT, os.environ.get("PYTHONPATH")]
    variables = {
        "PYTHONPATH": os.pathsep.join(str(path) for path in inherited if path),
        "OMP_NUM_THREADS": "1",
    }
    return REAL(
        [sys.executable, "-m", "ofa_deploy", *map(str, args)],
        cwd=cwd,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> Result:
    stdout, stderr = process.communicate(timeout=280)
    return Result(process.returncode, stdout, stderr)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a terminal wide enough for any table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    return tmp_path


def _few_timings(patch: pytest.MonkeyPatch) -> None:
    """Of what is exported: real ones, but few."""
    few = Protocol(rounds=1, runs=2, processes=1, tolerance=1e9)
    patch.setattr(bundle_module, "time_files", partial(TIME_FILES, protocol=few))


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    _few_timings(monkeypatch)


@pytest.fixture(scope="session")
def cli() -> Callable[..., Result]:
    return in_process


@pytest.fixture(scope="session")
def shell() -> tuple[Callable[..., "subprocess.Popen[str]"], Callable[..., Result]]:
    """``start`` and ``finish`` of a process of its own."""
    return start, finish


@pytest.fixture(scope="session")
def make_workers() -> Callable[[], Workers]:
    """For fixtures of a wider scope than ``workers``."""
    return Workers


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers()
    monkeypatch.setattr(subprocess, "Popen", made.popen)
    return made


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 noisy images of three colours that are hard to tell apart."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for name, colour in {
        "moss": (90, 130, 90),
        "rust": (130, 90, 90),
        "slate": (95, 95, 125),
    }.items():
        (folder / name).mkdir()
        for i in range(40):
            pixels = np.array(colour) + rng.normal(0, 20, 3) + rng.normal(0, 50, (32, 32, 3))
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(folder / name / f"{i:02}.png")
    return folder


@dataclass(frozen=True)
class Job:
    """The main job, done once.

    Attributes:
        folder: the working directory.
        said: what each command said.
        started: how many measuring processes it started.
    """

    folder: Path
    said: dict[str, Result]
    started: dict[str, int]

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "mine"

    @property
    def table(self) -> Path:
        return self.folder / "table.json"

    @property
    def subnet(self) -> Path:
        return self.run / "subnets" / "best.subnet.json"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundles" / "best"

    @property
    def fronts(self) -> tuple[Path, Path]:
        folder = self.run / "fronts"
        return folder / "best.front.json", folder / "best-measured.front.json"


TRAIN = ("--epochs", 3, "--batch", 16, "--threads", 1)


@pytest.fixture(scope="session")
def job(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Train, evaluate, profile, search and export, in this process, with exact timings."""
    made, workers = Job(tmp_path_factory.mktemp("job"), {}, {}), Workers()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        patch.setattr(subprocess, "Popen", workers.popen)
        _few_timings(patch)
        for name, *args in (
            ("train", "--data", photos, "--run", made.run, *TRAIN),
            ("evaluate", made.run, "--subnets", 12, "--format", "json"),
            ("profile", "--run", made.run, "--out", made.table),
            ("search", "--run", made.run, "--table", made.table, *budget(0.6), "--format", "json"),
            ("export", made.subnet, "--out", made.bundle),
        ):
            before = workers.started
            made.said[name] = in_process(name, *args)
            made.started[name] = workers.started - before
            assert made.said[name].code == 0, made.said[name].stderr
    return made


def budget(ms: float) -> tuple[str, str]:
    return ("--constraint", f"latency <= {ms} ms")


# -- searches by models alone ---------------------------------------------------------------


@pytest.fixture
def short_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at what is asked, not at how good the answer is."""
    find = evolution.search

    def short(*args: Any, **options: Any) -> Any:
        return find(*args, **{**options, "population": 20, "generations": 2, "climbs": 0})

    monkeypatch.setattr("ofa_deploy.search.search", short)


@pytest.fixture(scope="session")
def accuracy() -> AccuracyModel:
    """An accuracy model of ``mbv3-nano-32``: larger is better."""
    space = get_space("mbv3-nano-32")
    archs = space.decode(space.sample(np.random.default_rng(0), 30))
    return fit_accuracy(space, archs, [40 + np.log(space.cost(a).macs) for a in archs])


@pytest.fixture
def run(job: Job, tmp_path: Path) -> Path:
    """A copy of the run folder, to be damaged."""
    return Path(shutil.copytree(job.run, tmp_path / "copied" / "mine"))


@pytest.fixture
def table(job: Job, tmp_path: Path) -> Path:
    """A copy of the latency table, to be damaged."""
    return Path(shutil.copy(job.table, tmp_path / "copy.json"))


def asking(run: Path, table: Path, *more: object) -> tuple[object, ...]:
    """A search of a run with a table."""
    return ("search", "--run", run, "--table", table, *(more or budget(0.6)))
