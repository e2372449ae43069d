import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.errors import DeviceError, FileFormatError, InputError
from ofa_deploy.graph import build_onnx
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.runtimes.tensorrt import TensorRt
from ofa_deploy.runtimes.trt.artefact import read_plan, unpack
from ofa_deploy.runtimes.trt.cuda import Cuda, gpu
from ofa_deploy.runtimes.trt.recipe import (
    Recipe,
    build_recipe,
    read_recipe,
    run_recipe,
    trtexec_command,
    write_recipe,
)
from ofa_deploy.runtimes.trt.settings import HARDWARE, EngineSettings
from ofa_deploy.space import SearchSpace
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import VERSIONS, fake_tensorrt


@pytest.fixture
def path(tmp_path: Path, model: onnx.ModelProto) -> Path:
    return write_recipe(tmp_path / "out", "net", model, "fp16")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def replace_onnx(path: Path, model: onnx.ModelProto) -> None:
    """Another ONNX, with a recipe that names it."""
    data = model.SerializeToString()
    (path.parent / "net.onnx").write_bytes(data)
    edit(path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def test_a_recipe_names_its_onnx(path: Path) -> None:
    assert path.name == "net.recipe.json"
    assert {p.name for p in path.parent.iterdir()} == {"net.onnx", "net.recipe.json"}
    recipe, data = read_recipe(path)
    assert data == (path.parent / "net.onnx").read_bytes()
    assert hashlib.sha256(data).hexdigest() == recipe.sha256
    assert (recipe.input, recipe.shape) == ("images", (None, 3, 12, 12))
    kinds = {t.data_type for t in onnx.load_from_string(data).graph.initializer}
    assert kinds == {TensorProto.FLOAT16}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_recipe_is_built_elsewhere(
    tmp_path: Path, model: onnx.ModelProto, images: np.ndarray, version: str, precision: str
) -> None:
    """Written here, moved to a machine with a GPU, built and run there."""
    settings = EngineSettings(batches=(1, 2, 4), optimization_level=4)
    recipe = write_recipe(tmp_path / "a", "net", model, precision, [images], settings=settings)
    there = recipe.parent.rename(tmp_path / "b") / recipe.name
    library = FakeCudaLibrary()
    cuda, module = Cuda(library=library), fake_tensorrt(version, library)
    cache = tmp_path / "timing.cache"
    plan = there.with_name("net.plan")
    record = run_recipe(there, plan, timing_cache=cache, module=module, cuda=cuda)
    assert (record.precision, record.settings, record.version) == (precision, settings, version)
    assert record.onnx_sha256 == read_recipe(there)[0].sha256
    assert cache.exists()
    found = TensorRt(module=module, cuda=cuda).load(read_plan(plan)).run(images)
    expected = get_runtime("onnxruntime").load(model.SerializeToString()).run(images)
    assert float(((expected - found) ** 2).mean() / expected.var()) < 0.05


@pytest.mark.parametrize("version", VERSIONS)
def test_contents_are_built_as_files_are(path: Path, images: np.ndarray, version: str) -> None:
    library = FakeCudaLibrary()
    here = {"module": fake_tensorrt(version, library), "cuda": Cuda(library=library)}
    text, data = path.read_bytes(), (path.parent / "net.onnx").read_bytes()
    artefact = build_recipe(text, data, **here)
    record = run_recipe(path, path.with_name("net.plan"), **here)
    assert unpack(artefact)[0] == record
    runtime = TensorRt(record.settings, **here)
    assert runtime.load(artefact).run(images).shape == (3, 4)
    with pytest.raises(FileFormatError, match="net.onnx is not the file that its recipe"):
        build_recipe(text, data + b"x", **here)
    with pytest.raises(FileFormatError, match="not a tensorrt-recipe/1"):
        build_recipe(text[:-9], data, **here)


def test_without_a_gpu(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.cache_clear()
    monkeypatch.setattr("ofa_deploy.runtimes.trt.cuda.LIBRARY", "libnowhere.so.1")
    with pytest.raises(DeviceError, match="tensorrt needs an NVIDIA GPU"):
        run_recipe(path, path.with_name("net.plan"), module=fake_tensorrt(VERSIONS[1], None))
    assert not path.with_name("net.plan").exists()


def test_int8_needs_calibration(tmp_path: Path, model: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match="INT8 needs calibration images, found none"):
        write_recipe(tmp_path, "net", model, "int8")
    assert not list(tmp_path.iterdir())


def test_an_onnx_that_is_not_the_one(path: Path) -> None:
    source = path.parent / "net.onnx"
    source.write_bytes(source.read_bytes()[:-1] + b"?")
    with pytest.raises(FileFormatError, match="net.onnx is not the file that its recipe"):
        read_recipe(path)


def test_an_onnx_that_is_missing(path: Path) -> None:
    (path.parent / "net.onnx").unlink()
    with pytest.raises(InputError, match=rf"{path.name} names a file .*net.onnx: no such file"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", "tensorrt-recipe/2", "written by a newer ofa-deploy"),
        ("schema", "subnet/1", "expected a file of schema 'tensorrt-recipe/1'"),
        ("onnx", "../net.onnx", "onnx: expected text of the form"),
        ("onnx", "/etc/passwd", "onnx: expected text of the form"),
        ("onnx", "", "onnx: expected text of the form"),
        ("sha256", "00", "sha256: expected text of the form"),
        ("size", 2**40, "size: expected at most"),
        ("precision", "int4", "precision: expected 'fp32', 'fp16' or 'int8'"),
        ("input", "images --onnx=x", "input: expected text of the form"),
        ("shape", [], "shape: expected at least 1 entries"),
        ("settings", {"batches": [4, 2, 1]}, "settings: batches: expected 1 <= least"),
        ("settings", {"hardware": "all"}, "settings: hardware: expected one of none"),
        ("settings", {"fp16": True}, "settings.fp16: Unexpected keyword argument"),
        ("flags", ["--fp16"], "flags: unknown"),
    ],
)
def test_a_recipe_that_does_not_hold(path: Path, field: str, value: Any, message: str) -> None:
    edit(path, **{field: value})
    with pytest.raises(FileFormatError, match=f"net.recipe.json: {message}") as error:
        read_recipe(path)
    assert "\n" not in str(error.value)


def test_an_onnx_of_another_input(path: Path, tiny_space: SearchSpace) -> None:
    replace_onnx(path, build_onnx(tiny_space.lower(tiny_space.largest)))
    with pytest.raises(FileFormatError, match=r"net.onnx: expected an input images .*12\), found"):
        read_recipe(path)


def test_an_onnx_with_weights_elsewhere(path: Path, model: onnx.ModelProto) -> None:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    tensor = copy.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    replace_onnx(path, copy)
    with pytest.raises(FileFormatError, match=r"net.onnx keeps weights .* in another file"):
        read_recipe(path)


def test_an_onnx_with_constants_elsewhere(path: Path) -> None:
    """The checker does not look into a node's tensors."""
    constant = numpy_helper.from_array(np.zeros((1, 3, 12, 12), np.float32), "c")
    constant.ClearField("raw_data")
    constant.data_location = TensorProto.EXTERNAL
    entry = constant.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    (path.parent / "weights.bin").write_bytes(bytes(4 * 432))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("Add", ["images", "c"], ["logits"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 12, 12])
        for name in ("images", "logits")
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    replace_onnx(path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    with pytest.raises(FileFormatError, match=r"net.onnx keeps weights .* in another file"):
        read_recipe(path)


@pytest.mark.parametrize("data", [b"", b"rubbish", bytes(100)])
def test_an_onnx_that_is_none(path: Path, data: bytes) -> None:
    (path.parent / "net.onnx").write_bytes(data)
    edit(path, sha256=hashlib.sha256(data).hexdigest(), size=max(1, len(data)))
    with pytest.raises(FileFormatError, match="net.onnx"):
        read_recipe(path)


settings = st.builds(
    EngineSettings,
    batches=st.lists(st.integers(1, 64), min_size=3, max_size=3).map(lambda b: tuple(sorted(b))),
    memory_limit=st.none() | st.integers(2**20, 2**40),
    hardware=st.sampled_from(sorted(HARDWARE)),
    version_compatible=st.booleans(),
    optimization_level=st.integers(0, 5),
    tf32=st.booleans(),
)


@given(
    settings=settings,
    precision=st.sampled_from(["fp32", "fp16", "int8"]),
    shape=st.tuples(st.none() | st.integers(1, 9), st.just(3), st.integers(1, 999)),
)
def test_recipes_survive_the_disk(
    settings: EngineSettings, precision: Any, shape: tuple[int | None, ...]
) -> None:
    recipe = Recipe(
        onnx="n.onnx",
        sha256="0" * 64,
        size=1,
        precision=precision,
        input="x",
        shape=shape,
        settings=settings,
    )
    assert Recipe.model_validate_json(recipe.model_dump_json(by_alias=True)) == recipe
    command = trtexec_command(recipe)
    assert len(command) == len(set(command))
    assert ("--noTF32" in command) != settings.tf32
    assert any(part.startswith("--optShapes=x:") for part in command) == (shape[0] is None)


def test_the_command_of_a_plain_recipe(path: Path) -> None:
    recipe, _ = read_recipe(path)
    assert trtexec_command(recipe) == [
        "trtexec",
        "--onnx=net.onnx",
        "--saveEngine=net.plan",
        "--stronglyTyped",
        "--skipInference",
        "--builderOptimizationLevel=3",
        "--minShapes=images:1x3x12x12",
        "--optShapes=images:1x3x12x12",
        "--maxShapes=images:32x3x12x12",
        "--noTF32",
    ]


def test_the_command_with_all_there_is(tmp_path: Path, tiny_space: SearchSpace) -> None:
    fixed = build_onnx(tiny_space.lower(tiny_space.smallest), batch=2)
    settings = EngineSettings(
        memory_limit=2**30, hardware="ampere+", version_compatible=True, tf32=True
    )
    recipe, _ = read_recipe(write_recipe(tmp_path, "net", fixed, settings=settings))
    command = trtexec_command(
        recipe,
        folder=Path("/opt/bundle"),
        out="/tmp/a b.plan",
        timing_cache="/tmp/cache",
        executable="/usr/src/tensorrt/bin/trtexec",
    )
    assert command == [
        "/usr/src/tensorrt/bin/trtexec",
        "--onnx=/opt/bundle/net.onnx",
        "--saveEngine=/tmp/a b.plan",
        "--stronglyTyped",
        "--skipInference",
        "--builderOptimizationLevel=3",
        "--memPoolSize=workspace:1073741824B",
        "--hardwareCompatibilityLevel=ampere+",
        "--versionCompatible",
        "--timingCacheFile=/tmp/cache",
    ]
