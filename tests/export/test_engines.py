"""TensorRT's files in a bundle, where there is a GPU: stand-ins of both, see tests/runtimes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_deploy.errors import InputError
from ofa_deploy.export import ExportOptions, get_target
from ofa_deploy.export.builders import TensorRtTarget
from ofa_deploy.graph import build_onnx
from ofa_deploy.runtimes.tensorrt import TensorRt
from ofa_deploy.runtimes.trt.artefact import unpack, write_plan
from ofa_deploy.runtimes.trt.cuda import Cuda
from ofa_deploy.runtimes.trt.recipe import write_recipe
from ofa_deploy.runtimes.trt.settings import EngineSettings
from ofa_deploy.space import SearchSpace
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import VERSIONS, fake_tensorrt

Engine = Callable[..., TensorRt]


@pytest.fixture(params=VERSIONS)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Makes the engine of a machine that has a GPU."""
    library = FakeCudaLibrary()
    here = {"module": fake_tensorrt(request.param, library), "cuda": Cuda(library=library)}
    return lambda settings=None: TensorRt(settings, **here)


@pytest.fixture
def gpu(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(_: TensorRtTarget, options: ExportOptions | None = None) -> TensorRt:
        return engine(options.engine if options else None)

    monkeypatch.setattr(TensorRtTarget, "engine", made)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("gpu")
def test_a_recipe_is_built_where_it_is_loaded(
    tiny_space: SearchSpace, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = build_onnx(tiny_space.lower(tiny_space.smallest))
    write_recipe(tmp_path / "out", "tensorrt", model)
    target, files = get_target("tensorrt"), contents(tmp_path / "out")
    assert target.loads(files)
    images = rng.standard_normal((2, 3, 12, 12)).astype(np.float32)
    assert target.load(target.artefact(files)).run(images).shape == (2, 4)


def test_without_a_gpu_a_recipe_says_what_is_missing(
    tiny_space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TensorRt, "why_not", lambda _: "no NVIDIA driver here")
    write_recipe(tmp_path / "out", "tensorrt", build_onnx(tiny_space.lower(tiny_space.smallest)))
    target, files = get_target("tensorrt"), contents(tmp_path / "out")
    assert not target.loads(files)
    with pytest.raises(InputError, match="recipe, and its engine cannot be built here: no NVIDIA"):
        target.artefact(files)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("many", [False, True])
def test_engines_that_bring_code_are_not_loaded_from_a_bundle(
    tiny_space: SearchSpace, tmp_path: Path, engine: Engine, many: bool
) -> None:
    settings = EngineSettings(version_compatible=many)
    artefact = engine(settings).build(build_onnx(tiny_space.lower(tiny_space.smallest)))
    write_plan(tmp_path / "tensorrt.plan", artefact)
    target: Any = get_target("tensorrt")
    if many:
        with pytest.raises(InputError, match="may bring code for this machine"):
            target.artefact(contents(tmp_path))
    else:
        assert unpack(target.artefact(contents(tmp_path))) == unpack(artefact)
