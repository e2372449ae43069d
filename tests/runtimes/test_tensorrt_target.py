"""The files that a target needs stand alone: a Jetson has an old Python, no onnx, no pydantic."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ofa_deploy

PACKAGE = Path(ofa_deploy.__file__).parent
FILES = (
    "errors.py",
    *(
        f"runtimes/trt/{name}.py"
        for name in ("build", "cuda", "events", "kept", "module", "plan", "settings", "timed")
    ),
    "runtimes/ort_session.py",
    "runtimes/room.py",
)


@pytest.mark.parametrize("name", FILES)
def test_it_is_python_3_8(name: str) -> None:
    ast.parse((PACKAGE / name).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_they_load_without_the_rest(tmp_path: Path) -> None:
    for name in FILES:
        target = tmp_path / "ofa_deploy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / name, target)
        (target.parent / "__init__.py").touch()
    (tmp_path / "ofa_deploy" / "runtimes" / "__init__.py").touch()
    code = (
        "import sys\n"
        "from ofa_deploy.runtimes.trt.build import build_plan\n"
        "from ofa_deploy.runtimes.trt.plan import Plan\n"
        "from ofa_deploy.runtimes.trt.timed import Timed\n"
        "from ofa_deploy.runtimes.ort_session import open_session\n"
        "import ofa_deploy.errors\n"
        "print(ofa_deploy.errors.__file__)\n"
        "print(sorted({'onnx', 'onnxruntime', 'pydantic', 'torch'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [str(tmp_path / "ofa_deploy" / "errors.py"), "[]"]
