"""What every runtime must do, on each interface of TensorRT, and on real ones where they are."""

import pytest

import tests.runtimes.test_contract as contract
from ofa_deploy.runtimes.base import Runtime
from ofa_deploy.runtimes.tensorrt import TensorRt
from ofa_deploy.runtimes.tensorrt_rtx import TensorRtRtx
from ofa_deploy.runtimes.trt.cuda import Cuda
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import VERSIONS, fake_tensorrt, runtime_on

# Everything that the contract asks, but what asks the registry of runtimes.
globals().update(
    {
        name: value
        for name, value in vars(contract).items()
        if name in ("model", "images") or (name.startswith("test_") and "name" not in name)
    }
)


def _rtx() -> Runtime:
    library = FakeCudaLibrary((8, 6), name="Fake RTX")
    module = fake_tensorrt("1.7.1.116", library, rtx=True)
    return TensorRtRtx(module=module, cuda=Cuda(library=library))


_REAL: dict[str, Runtime | str] = {
    runtime.name: runtime.why_not() or runtime for runtime in (TensorRt(), TensorRtRtx())
}


@pytest.fixture(params=[*VERSIONS, "rtx", *[n for n, r in _REAL.items() if isinstance(r, Runtime)]])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param in _REAL:
        return _REAL[request.param]  # type: ignore[return-value]
    return _rtx() if request.param == "rtx" else runtime_on(FakeCudaLibrary(), request.param)


@pytest.mark.parametrize("name", _REAL)
def test_the_contract_ran_on_the_real_one(name: str) -> None:
    if isinstance(why := _REAL[name], str):
        pytest.skip(f"only stand-ins: {why}")
