"""Where there is no GPU: the ONNX that TensorRT shall build from, and how, for another machine.

A recipe is two files: ``NAME.onnx``, with its precision in it, and ``NAME.recipe.json``, which
names the ONNX with its hash and holds the settings. ``build_recipe`` and ``run_recipe`` build from
it on the target; ``trtexec_command`` is the same build for TensorRT's own tool.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ofa_deploy.checks import problem
from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.files import read_bytes, read_model, write_bytes, write_model
from ofa_deploy.hardware.engine import one_line
from ofa_deploy.runtimes.onnx_file import check_self_contained
from ofa_deploy.runtimes.tensorrt import TensorRt
from ofa_deploy.runtimes.trt.artefact import EngineRecord, write_plan
from ofa_deploy.runtimes.trt.cuda import Cuda
from ofa_deploy.runtimes.trt.graphs import with_precision
from ofa_deploy.runtimes.trt.settings import EngineSettings

__all__ = [
    "Recipe",
    "build_recipe",
    "read_recipe",
    "run_recipe",
    "trtexec_command",
    "write_recipe",
]

Floats = npt.NDArray[np.float32]

_SCHEMA = "tensorrt-recipe/1"
_MAX_BYTES = 2**31
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # a file beside the recipe, no path


class Recipe(BaseModel):
    """``NAME.recipe.json``.

    Attributes:
        onnx: the file beside the recipe.
        sha256, size: of that file; size in bytes.
        precision: of the engine; it is in the ONNX, nothing else asks for it.
        input: the name of the model's input.
        shape: of the input; None for a batch that ``settings.batches`` bounds.
        settings: of the build.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["tensorrt-recipe/1"] = Field("tensorrt-recipe/1", alias="schema")
    onnx: str = Field(pattern=_NAME, max_length=200)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0, le=_MAX_BYTES)
    precision: Literal["fp32", "fp16", "int8"]
    input: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=200)
    shape: tuple[int | None, ...] = Field(min_length=1, max_length=8)
    settings: EngineSettings


def write_recipe(
    folder: Path,
    name: str,
    model: onnx.ModelProto,
    precision: str = "fp32",
    calibration: Sequence[Floats] = (),
    *,
    settings: EngineSettings | None = None,
    floats: Iterable[str] = (),
) -> Path:
    """Write ``NAME.onnx`` and ``NAME.recipe.json``.

    Args:
        model: float32; it is given the precision here.
        calibration, floats: batches of inputs, and nodes to leave in float32, for ``int8``.

    Returns:
        The recipe's path.

    Raises:
        InputError: for another precision, a graph that cannot have it, INT8 without calibration, or
            a graph of several inputs.
    """
    ready = with_precision(model, precision, calibration, floats=floats)
    name_in, shape = _input(ready)
    data = ready.SerializeToString()
    recipe = Recipe(
        onnx=f"{name}.onnx",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        precision=precision,
        input=name_in,
        shape=shape,
        settings=settings or EngineSettings(),
    )
    write_bytes(folder / recipe.onnx, data)
    return write_model(folder / f"{name}.recipe.json", recipe)


def _input(model: onnx.ModelProto) -> tuple[str, tuple[int | None, ...]]:
    if len(model.graph.input) != 1:
        raise InputError(f"expected a model of one input, found {len(model.graph.input)}")
    (source,) = model.graph.input
    dimensions = source.type.tensor_type.shape.dim
    return source.name, tuple(d.dim_value if d.HasField("dim_value") else None for d in dimensions)


def read_recipe(path: Path) -> tuple[Recipe, bytes]:
    """A recipe and its ONNX, which is the one that the recipe names.

    Raises:
        InputError: if either file is missing.
        FileFormatError: if the recipe does not validate, or the ONNX is another.
    """
    recipe = read_model(path, Recipe, schema=_SCHEMA)
    source = path.parent / recipe.onnx
    try:
        data = read_bytes(source, limit=_MAX_BYTES)
    except InputError as error:
        raise InputError(f"{path} names a file that cannot be read: {error}") from None
    _check_onnx(source, data, recipe)
    return recipe, data


def build_recipe(
    text: bytes, data: bytes, *, module: Any = None, cuda: Cuda | None = None
) -> bytes:
    """Build on this machine's GPU from the contents of a recipe's two files.

    Args:
        text: of ``NAME.recipe.json``.
        data: of ``NAME.onnx``.
        module, cuda: see ``TensorRt``.

    Returns:
        An artefact for ``TensorRt.load``.

    Raises:
        FileFormatError: if the recipe does not validate, or the ONNX is another.
        DeviceError, MissingDependencyError: if there is no GPU or no TensorRT, or it refuses.
    """
    try:
        recipe = Recipe.model_validate_json(text)
    except ValidationError as error:
        raise FileFormatError(f"not a {_SCHEMA}: {problem(error)}") from None
    _check_onnx(Path(recipe.onnx), data, recipe)
    runtime = TensorRt(recipe.settings, module=module, cuda=cuda)
    return runtime.build_ready(data, recipe.precision)


def _check_onnx(path: Path, data: bytes, recipe: Recipe) -> None:
    """See that an ONNX is the one that the recipe names, and brings all its weights along."""
    if (len(data), hashlib.sha256(data).hexdigest()) != (recipe.size, recipe.sha256):
        raise FileFormatError(f"{path} is not the file that its recipe names; export it anew")
    check_self_contained(data, str(path))
    try:
        model = onnx.ModelProto.FromString(data)
        onnx.checker.check_model(model)
        described = _input(model)
    except Exception as error:  # protobuf's and the checker's exceptions share no public base
        raise FileFormatError(f"{path}: not an ONNX model: {one_line(error)}") from None
    if described != (recipe.input, recipe.shape):
        raise FileFormatError(
            f"{path}: expected an input {recipe.input} {recipe.shape}, found {described}"
        )


def run_recipe(
    path: Path,
    out: Path,
    *,
    timing_cache: Path | None = None,
    module: Any = None,
    cuda: Cuda | None = None,
) -> EngineRecord:
    """Build what a recipe says on this machine's GPU: ``out``, a plan, and its record beside it.

    Args:
        path: ``NAME.recipe.json``.
        out: such as ``NAME.plan``; ``read_plan`` reads it for ``TensorRt.load``.
        timing_cache, module, cuda: see ``TensorRt``.

    Raises:
        InputError, FileFormatError: as ``read_recipe``.
        DeviceError, MissingDependencyError: if there is no GPU or no TensorRT, or it refuses.
    """
    recipe, data = read_recipe(path)
    runtime = TensorRt(recipe.settings, timing_cache=timing_cache, module=module, cuda=cuda)
    return write_plan(out, runtime.build_ready(data, recipe.precision))


def trtexec_command(
    recipe: Recipe,
    *,
    folder: Path = Path(),
    out: str = "",
    timing_cache: str = "",
    executable: str = "trtexec",
) -> list[str]:
    """The same build as a command for ``trtexec`` of TensorRT 10 or 11, as a list of arguments.

    Not run by the tests, which have no ``trtexec``. Its plan has no record.

    Args:
        folder: where the recipe lies, as the command sees it.
        out: the plan; NAME.plan in that folder when not given.
        timing_cache: a file of its own, not the one of ``TensorRt``.
    """
    settings = recipe.settings
    onnx_path = folder / recipe.onnx
    arguments = [
        executable,
        f"--onnx={onnx_path}",
        f"--saveEngine={out or onnx_path.with_suffix('.plan')}",
        "--stronglyTyped",
        "--skipInference",
        f"--builderOptimizationLevel={settings.optimization_level}",
    ]
    if recipe.shape[0] is None:
        shapes = ["x".join(map(str, (batch, *recipe.shape[1:]))) for batch in settings.batches]
        arguments += [
            f"--{kind}Shapes={recipe.input}:{shape}"
            for kind, shape in zip(("min", "opt", "max"), shapes, strict=True)
        ]
    if settings.memory_limit is not None:
        arguments.append(f"--memPoolSize=workspace:{settings.memory_limit}B")
    if settings.hardware != "none":
        arguments.append(f"--hardwareCompatibilityLevel={settings.hardware}")
    if settings.version_compatible:
        arguments.append("--versionCompatible")
    if not settings.tf32:
        arguments.append("--noTF32")
    if timing_cache:
        arguments.append(f"--timingCacheFile={timing_cache}")
    return arguments
