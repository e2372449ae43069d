"""Formats of engines for GPUs: what is checked before TensorRT may see any of it."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.faults import binary_mutations
from tests.faults.bundle_formats import bundle_files
from tests.faults.formats import Format, dumped, json_format, same, strict_json
from tests.faults.weight_formats import files_of, made_by

__all__ = ["engine_formats"]

_PLAN = b"what an engine may hold" * 40


@cache
def _recipe_files() -> dict[str, bytes]:
    import onnx

    from ofa_deploy.runtimes.trt.recipe import write_recipe

    model = onnx.ModelProto.FromString(bundle_files()["model.onnx"])

    def make(folder: Path) -> dict[str, bytes]:
        write_recipe(folder, "net", model)
        return files_of(folder, "net.recipe.json", "net.onnx")

    return made_by(make)


def _recipe_format() -> Format:
    from ofa_deploy.runtimes.trt.recipe import read_recipe, trtexec_command

    def read(folder: Path) -> Any:
        recipe, _ = read_recipe(folder / "net.recipe.json")
        assert all(isinstance(word, str) for word in trtexec_command(recipe))
        return recipe

    files = _recipe_files()
    value = json.loads(files["net.recipe.json"])
    return json_format("TensorRT recipe", "net.recipe.json", value, read, dumped, files)


def _record() -> Any:
    from ofa_deploy.runtimes.trt.artefact import EngineRecord
    from ofa_deploy.runtimes.trt.settings import EngineSettings

    return EngineRecord(
        runtime="tensorrt",
        version="10.3.0",
        sha256=hashlib.sha256(_PLAN).hexdigest(),
        size=len(_PLAN),
        onnx_sha256="ab" * 32,
        precision="fp16",
        settings=EngineSettings(),
        capabilities=((8, 7),),
        gpu="Orin",
        machine="linux-aarch64",
    )


def _unpacked(folder: Path) -> Any:
    from ofa_deploy.runtimes.trt.artefact import read_plan, unpack

    return unpack(read_plan(folder / "net.plan"))


def _plan_format() -> Format:
    """A plan's record, and the plan beside it."""
    value = dumped(_record())
    form = json_format(
        "TensorRT plan",
        "net.plan.json",
        value,
        _unpacked,
        lambda found: dumped(found[0]),
        {"net.plan": _PLAN},
    )
    return form


def _packed_format() -> Format:
    """A record and its plan in one zip, as agents send it."""
    from ofa_deploy.runtimes.trt.artefact import pack, unpack

    def agrees(folder: Path, found: Any) -> str | None:
        record, plan = found
        with zipfile.ZipFile(io.BytesIO((folder / "net.engine").read_bytes())) as archive:
            said = strict_json(archive.read("engine.json"))
        return same(said, dumped(record)) or (None if plan == _PLAN else "another plan")

    return Format(
        "TensorRT artefact",
        {"net.engine": pack(_record(), _PLAN)},
        {"zip": binary_mutations.zipped, "bytes": binary_mutations.binary},
        lambda folder: unpack((folder / "net.engine").read_bytes()),
        agrees,
        is_file=False,  # whoever holds the bytes has read the file
        names=("not an engine of ofa-deploy", "the engine "),
    )


def engine_formats() -> dict[str, Callable[[], Format]]:
    """By name, made when asked for."""
    return {
        "TensorRT recipe": _recipe_format,
        "TensorRT plan": _plan_format,
        "TensorRT artefact": _packed_format,
    }
