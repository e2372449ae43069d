"""What an agent carries runs on Python 3.8 without any package: energy.py and telemetry/."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ofa_deploy.hardware import telemetry

FOLDER = Path(telemetry.__file__).parent
CARRIED = [FOLDER.parent / "energy.py", *sorted(FOLDER.glob("*.py"))]
# Loaded only where they are needed, inside functions.
LATE = {"psutil"}


@pytest.mark.parametrize("path", CARRIED, ids=lambda path: path.name)
def test_grammar_is_that_of_python_3_8(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    heads = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert path.name == "__init__.py" or any(node.module == "__future__" for node in heads)


@pytest.mark.parametrize("path", CARRIED, ids=lambda path: path.name)
def test_nothing_is_imported_but_the_standard_library(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = {str(node.module).partition(".")[0]}
        else:
            continue
        assert names <= sys.stdlib_module_names | LATE, (path.name, node.lineno)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from carried import energy, telemetry
assert not {"ofa_deploy", "pydantic", "psutil", "numpy"} & set(sys.modules)
line = "RAM 1/2MB CPU [1%@729,off] GR3D_FREQ 0%@[305,0] tj@49.1C VDD_IN 4761mW/4778mW NC 0mW/0mW"
found = telemetry.parse_tegrastats(line)
assert found.clocks_mhz == {"cpu0": 729, "gpu": 305}, found
assert telemetry.Telemetry.from_dict(found.to_dict()) == found
assert telemetry.parse_throttled("throttled=0x50005")[0] == ("under-voltage", "throttled")
assert telemetry.identify().python.startswith("3.")
assert 0 <= telemetry.LoadMeter().others() <= 1
with telemetry.Sensors.find(gpu=0) as sensors:
    assert telemetry.Telemetry.from_dict(sensors.read().to_dict()) is not None
    energy.energy_meter(sensors)
assert energy.EnergyMeter.find() is None or energy.EnergyMeter.find().per_call(lambda: None, 0) >= 0
assert energy.PowerMeter(lambda: 1000.0, pause_s=0.001).per_call(lambda: None, 0.05) > 0
print("works")
"""


def _old_pythons() -> list[str]:
    """Interpreters older than this one: what pyenv has, and what is on the path."""
    names = ("python3.8", "python3.9", "python3.10")
    roots = (Path.home() / ".pyenv/versions").glob("3.*/bin")
    found = [shutil.which(name, path=str(folder)) for folder in roots for name in names]
    return sorted({path for path in [*found, *map(shutil.which, names)] if path})


def _works(python: str) -> bool:
    done = subprocess.run([python, "-c", ""], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("age", ["this", "oldest"])
def test_runs_by_itself(tmp_path: Path, age: str) -> None:
    python: str | None = sys.executable
    if age == "oldest":
        python = next(filter(_works, _old_pythons()), None)
        if python is None:
            pytest.skip("needs a Python older than this one")
    package = tmp_path / "carried"
    shutil.copytree(FOLDER, package / "telemetry", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(FOLDER.parent / "energy.py", package)
    (package / "__init__.py").touch()
    command = [str(python), "-I", "-W", "error", "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "works\n"
