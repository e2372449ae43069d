"""Engines tell nobody of their use, over the network or in the home folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

AGENT = (
    "import os, ofa_deploy; os.environ.pop('ORT_DISABLE_TELEMETRY')\n"
    "from ofa_deploy.profiling.agent.engines import _module\n"
)
USES = {
    "openvino": "from ofa_deploy.runtimes.openvino_library import core; core()",
    "openvino, agent": f"{AGENT}_module('openvino').Core()",
    "nncf": "from ofa_deploy.runtimes.openvino_library import nncf; nncf()\n"
    "from nncf.telemetry import wrapper\n"
    "assert not isinstance(wrapper.telemetry, wrapper.ITelemetry), wrapper.telemetry",
    "onnxruntime": "from ofa_deploy.predict import accuracy; import onnxruntime as ort\n"
    "ort.SessionOptions()",
    "onnxruntime, agent": f"{AGENT}_module('onnxruntime').SessionOptions()",
}


@pytest.mark.parametrize("use", USES)
def test_an_engine_keeps_to_itself(tmp_path: Path, use: str) -> None:
    """In a process of its own: within pytest NNCF keeps quiet by itself."""
    pytest.importorskip(use.partition(",")[0])
    left = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    code = f"{USES[use]}\nimport sys, time; time.sleep(0.3)\n"
    code += "assert sys.modules.get('openvino_telemetry') is None"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=left | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir()), "it kept something in the home folder"
