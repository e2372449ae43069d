"""Records what the CUDA driver's header says of the functions that are called through ctypes.

The header comes with NVIDIA's packages of the CUDA runtime, on machines without a GPU too.

    pip download --no-deps -d wheels nvidia-cuda-runtime-cu12==12.6.77 nvidia-cuda-runtime==13.5.37
    python tests/runtimes/record_cuda_api.py wheels/*.whl > tests/runtimes/cuda_api.json

Needs a C compiler, whose preprocessor tells which version of a function a program gets.
"""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ofa_deploy.runtimes.trt import cuda

__all__ = ["NAMES"]

NAMES = sorted({*cuda._SIGNATURES, *cuda._LATER.values()})
_PLAIN = {
    "int": "i32",
    "unsigned int": "u32",
    "unsigned long long": "u64",
    "size_t": "u64",  # on the machines that are served
}

Api = dict[str, list[str]]


def _kind(text: str, source: str) -> str:
    """What a parameter is to a caller: ``pointer``, ``i32``, ``u32`` or ``u64``."""
    declared = re.sub(r"\bconst\b|\b\w+$", "", text.strip()).strip()
    if "*" in declared:
        return "pointer"
    if declared in _PLAIN:
        return _PLAIN[declared]
    found = re.search(rf"typedef\s+([^;{{}}]*?)(\*?)\s*\b{declared};", source)
    if found is None:
        assert re.search(rf"typedef enum[^;]*}}\s*{declared};", source), declared
        return "i32"
    target, star = found.groups()
    return "pointer" if star else _kind(f"{target} name", source)


def _read(header: Path) -> Api:
    command = ["cc", "-E", "-P", "-I", str(header.parent), str(header)]
    source = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for name in NAMES:
        if match := re.search(rf"CUresult\s+{name}\s*\(([^)]*)\)\s*;", source):
            found[name] = [_kind(each, source) for each in match[1].split(",")]
    return found


def main() -> None:
    """Print the interfaces of the wheels that are named."""
    versions = {}
    for wheel in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
            (header,) = Path(folder).rglob("include/cuda.h")
            versions[wheel.name.split("-")[1]] = _read(header)
    lines = [
        f' "{version}": {{\n'
        + ",\n".join(f'  "{name}": {json.dumps(kinds)}' for name, kinds in api.items())
        + "\n }"
        for version, api in sorted(versions.items())
    ]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
