"""Records what TensorRT's Python bindings offer, so that stand-ins can be held to it.

The bindings of a wheel such as ``tensorrt-cu13-bindings`` load beside empty libraries that bear
TensorRT's names: nothing can be built then, but every class and signature can be read.

    pip download --no-deps -d wheels tensorrt-cu11-bindings==10.13.0.35
    pip download --no-deps -d wheels tensorrt-cu13-bindings==11.4.0.106
    python tests/runtimes/record_tensorrt_api.py wheels/*.whl > tests/runtimes/tensorrt_api.json

Needs a C compiler, and the Python version of the wheels.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

CLASSES = (
    "Builder",
    "BuilderFlag",
    "DataType",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITensor",
    "ITimingCache",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "TensorIOMode",
)
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)

Api = dict[str, dict[str, Any]]


def api_of(module: Any) -> Api:
    """Class to member to what it is.

    A method is the list of its signatures, one a way to call it, such as ``"flags=0"``; a member
    of an enumeration is its number; anything else is None.
    """
    return {
        name: {
            member: _describe(kind, member)
            for member in sorted(dir(kind))
            if not member.startswith("_")
        }
        for name in CLASSES
        if (kind := getattr(module, name, None)) is not None
    }


def _describe(kind: Any, name: str) -> Any:
    member = getattr(kind, name)
    if isinstance(member, kind):
        return int(member)
    if not callable(member) or isinstance(member, type):
        return None
    lines = (member.__doc__ or "").splitlines()
    found = [re.match(rf"(?:\d+\. )?{name}\((.*)\) -> ", line.strip()) for line in lines]
    return [signature(match[1]) for match in found if match]


def signature(text: str) -> str:
    """``self: Builder, flags: int = 0`` as ``flags=0``."""
    parts = re.split(r",\s*(?![^\[<]*[\]>])", text)
    names = []
    for part in parts[1:]:
        name, _, rest = part.partition(":")
        default = rest.rpartition("=")[2].strip() if "=" in rest else None
        names.append(name.strip() if default is None else f"{name.strip()}={default}")
    return ", ".join(names)


def _record(wheel: Path) -> tuple[str, Api]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        source = folder / "empty.c"
        source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in _SYMBOLS))
        major = wheel.name.split("-")[1].partition(".")[0]
        for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            name = f"lib{library}.so.{major}"
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o"]
            subprocess.run([*command, str(folder / name), str(source)], check=True)
        printed = subprocess.run(
            [sys.executable, __file__, "--print"],
            env={**os.environ, "LD_LIBRARY_PATH": temporary, "PYTHONPATH": temporary},
            stdout=subprocess.PIPE,
            check=True,
        )
    version, api = json.loads(printed.stdout)
    return version, api


def main() -> None:
    """Print the interfaces of the wheels that are named."""
    if sys.argv[1:] == ["--print"]:
        import tensorrt_bindings  # type: ignore[import-not-found]

        print(json.dumps([tensorrt_bindings.__version__, api_of(tensorrt_bindings)]))
        return
    versions = []
    for version, api in (_record(Path(wheel)) for wheel in sys.argv[1:]):
        lines = ",\n".join(f'  "{name}": {json.dumps(members)}' for name, members in api.items())
        versions.append(f' "{version}": {{\n{lines}\n }}')
    print("{\n" + ",\n".join(versions) + "\n}")


if __name__ == "__main__":
    main()
