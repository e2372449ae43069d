"""Executes the notebooks in order, in one folder, and keeps their outputs: ``make notebooks``.

They share a folder: the first trains what the others use. Paths of this machine are taken out of
the outputs. Notebook 6 needs a checkpoint, ``WEIGHTS``, of the space ``SPACE``; without one it is
left as it is.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
NEEDS_WEIGHTS = "6_your_published_weights.ipynb"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_RUNNING = re.compile(r"^.*: \d+/\d+, \d+ .*left.*\n", re.MULTILINE)  # progress of the while


def names() -> list[str]:
    """All notebooks, in the order in which they are read."""
    found = sorted(path.name for path in HERE.glob("*.ipynb"))
    return [name for name in found if name != NEEDS_WEIGHTS or os.environ.get("WEIGHTS")]


def execute(name: str, folder: Path, timeout_s: int = 1800) -> Any:
    """Run one notebook in a folder.

    Returns:
        It, with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: naming the cell that failed.
    """
    notebook = nbformat.read(HERE / name, as_version=4)
    variables = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(
            part for part in (os.environ.get("PYTHONPATH"), str(HERE.parent)) if part
        ),
        "COLUMNS": "100",
    }
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | variables)
    return _tidy(notebook, folder)


def _tidy(notebook: Any, folder: Path) -> Any:
    """Without what differs from run to run for no reason, and paths of this machine."""
    places = [str(place) for place in (folder.resolve(), folder, HERE.parent, Path.home())]
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
        for output in cell.get("outputs", ()):
            if "text" in output:
                text = _COLOURS.sub("", _without(places, output["text"]))
                output["text"] = _RUNNING.sub("", text)
            for kind, data in output.get("data", {}).items():
                if isinstance(data, str) and kind.startswith("text/"):
                    output["data"][kind] = _without(places, data)
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """What one stream said is one output, however many pieces it came in."""
    made: list[Any] = []
    for output in outputs:
        before = made[-1] if made else None
        if before and output.get("name") and before.get("name") == output.name:
            before["text"] += output["text"]
        else:
            made.append(output)
    return made


def _without(places: list[str], text: str) -> str:
    for place in places:
        text = re.sub(rf"{re.escape(place)}/?", "", text)
    return text


def main() -> None:
    """Execute all, or those that are named, and write them back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", help="file names; default: all")
    parser.add_argument("--folder", type=Path, help="work here, and go on with what is there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.notebooks or names():
            print(f"executing {name}", flush=True)
            nbformat.write(execute(name, folder), HERE / name)


if __name__ == "__main__":
    main()
