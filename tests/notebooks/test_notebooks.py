"""The notebooks run from top to bottom, and keep outputs that say nothing of the machine."""

import json
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_deploy.space import get_space
from ofa_deploy.supernet import Supernet
from tests.cli.conftest import EXACT
from tests.cli.test_weights import TOML, published

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LAST = "6_your_published_weights.ipynb"
SMALL = {"EPOCHS": "3", "IMAGES": "600", "HELD_OUT": "400", "MINUTES": "0.1", "SUBNETS": "9"}
# Loaded by every Python that is started: measuring processes answer with exact timings.
STAND_IN = f"""
import subprocess, sys

class _Popen(subprocess.Popen):
    def __init__(self, command, *args, **options):
        if "ofa_deploy.profiling.worker" in command:
            command = [sys.executable, "-I", "-S", "-c", {EXACT!r}]
        super().__init__(command, *args, **options)

subprocess.Popen = _Popen
"""


def _executor() -> Any:
    pytest.importorskip("nbclient", reason="pip install 'ofa-deploy[notebooks]'")
    spec = spec_from_file_location("execute_notebooks", ROOT / "notebooks" / "execute.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_weights(folder: Path) -> tuple[Path, Path]:
    """A small space, and a file of the published form with random weights of it."""
    space, weights = folder / "own.toml", folder / "weights.pth"
    space.write_text(TOML)
    torch.manual_seed(3)
    net = Supernet(get_space(str(space)))
    torch.save({"state_dict": published(net)}, weights)
    return weights, space


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all notebooks run, one after another."""
    made = tmp_path_factory.mktemp("notebooks")
    (made / "stand-in").mkdir()
    (made / "stand-in" / "sitecustomize.py").write_text(STAND_IN)
    weights, space = make_weights(made)
    variables = SMALL | {
        "WEIGHTS": weights.name,
        "SPACE": space.name,
        "RESOLUTIONS": "16",
        "PYTHONPATH": str(made / "stand-in"),
        "XDG_CACHE_HOME": str(made / "cache"),
        "IPYTHONDIR": str(made / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(made / "runtime"),
        "MPLCONFIGDIR": str(made / "matplotlib"),
        "OMP_NUM_THREADS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, folder: Path) -> None:
    made = _executor().execute(path.name, folder, timeout_s=250)
    assert str(folder) not in json.dumps(made)
    for cell in made.cells:
        if cell.cell_type == "code" and "%%sh" in cell.source:
            assert cell.outputs, cell.source


def test_there_are_six_in_order() -> None:
    assert [path.name[0] for path in NOTEBOOKS] == list("123456")
    assert NOTEBOOKS[-1].name == LAST


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_say_nothing_of_the_machine(path: Path) -> None:
    code = [cell for cell in _cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    text = json.dumps(outputs)
    assert not re.search(r"/(tmp|home|root|work|usr)/|Traceback|\\u001b", text)
    assert path.stat().st_size < 250_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_to_notebooks(path: Path) -> None:
    for cell in _cells(path):
        if cell["cell_type"] == "markdown":
            for name in re.findall(r"\]\((\d_\w+\.ipynb)\)", "".join(cell["source"])):
                assert (path.parent / name).is_file()


def test_without_weights_the_last_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _executor()
    monkeypatch.delenv("WEIGHTS", raising=False)
    assert module.names() == [path.name for path in NOTEBOOKS[:-1]]
    monkeypatch.setenv("WEIGHTS", "here.pth")
    assert module.names()[-1] == LAST


def test_outputs_are_tidied(tmp_path: Path) -> None:
    import nbformat

    module = _executor()
    cell = nbformat.v4.new_code_cell("1")
    progress = ("train: 1/9, 8 s left\n", "train: 2/9, 7 min left loss 1\n")
    said = (*progress, f"wrote {tmp_path}/a.json\n", f"{ROOT}/notebooks\n")
    cell.outputs = [nbformat.v4.new_output("stream", text=text) for text in said]
    made = module._tidy(nbformat.v4.new_notebook(cells=[cell]), tmp_path)
    (output,) = made.cells[0].outputs
    assert output["text"] == "wrote a.json\nnotebooks\n"
