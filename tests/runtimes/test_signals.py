"""A process that used engines still hears signals: Ctrl-C ends a command, not the process."""

import subprocess
import sys

import pytest

USE = """
import gc, os, signal
import numpy as np
from ofa_deploy.graph import build_onnx
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import get_space

space = get_space("mbv3-nano-32")
model, runtime = build_onnx(space.lower(space.smallest)), get_runtime({runtime!r})
side = space.smallest.resolution
images = np.random.default_rng(0).standard_normal((2, 3, side, side)).astype(np.float32)
sessions = [runtime.load(runtime.build(model)) for _ in range(2)]
sessions[0].run(images)
del sessions[0], sessions
runtime.load(runtime.build(model, "int8", [images])).run(images)
gc.collect()
for _ in range(2):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("heard")
"""


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_signals_are_heard(runtime: str) -> None:
    pytest.importorskip(runtime)
    done = subprocess.run(
        [sys.executable, "-c", USE.format(runtime=runtime)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "heard\nheard\n"), done.stderr
