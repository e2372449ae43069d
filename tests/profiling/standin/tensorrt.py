"""What a Python that has this folder on its path takes for TensorRT, on a machine with a GPU.

It is the stand-in of ``tests/runtimes``; the CUDA driver's library is one too, by its own name.
Variables say the rest: ``STANDIN_PATH``, where its packages are; ``STANDIN_VERSION``;
``STANDIN_GPU``, the GPU's name, none if empty; ``STANDIN_LOG``, a file that gets a line for each
build: the process, and how many layers it had to time.
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).resolve().parents[3]), *os.environ["STANDIN_PATH"].split(":")]

from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import VERSIONS, fake_tensorrt


class _Builds(list):  # type: ignore[type-arg]
    def append(self, layers: Any) -> None:
        with Path(os.environ["STANDIN_LOG"]).open("a") as log:
            log.write(f"{os.getpid()} {layers}\n")


_name = os.environ["STANDIN_GPU"]
_library = FakeCudaLibrary(name=_name) if _name else None
_real = ctypes.CDLL


def _load(name: Any, *arguments: Any, **options: Any) -> Any:
    if name != "libcuda.so.1":
        return _real(name, *arguments, **options)
    if _library is None:
        raise OSError(f"{name}: cannot open shared object file")
    return _library


ctypes.CDLL = _load  # type: ignore[assignment,misc]
_version = os.environ["STANDIN_VERSION"]
_module = fake_tensorrt(_version if _version in VERSIONS else VERSIONS[0], _library)
_module.__version__ = _version
_module.builds = _Builds()
sys.modules[__name__] = _module  # type: ignore[assignment]
