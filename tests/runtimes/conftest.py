"""A graph and images for it, on the stand-ins of TensorRT."""

import numpy as np
import onnx
import pytest

from ofa_deploy.graph import build_onnx
from ofa_deploy.space import SearchSpace
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import VERSIONS


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def library() -> FakeCudaLibrary:
    return FakeCudaLibrary()


@pytest.fixture(scope="session")
def model(tiny_space: SearchSpace) -> onnx.ModelProto:
    return build_onnx(tiny_space.lower(tiny_space.smallest))


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((3, 3, 12, 12)).astype(np.float32)
