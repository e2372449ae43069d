import gc
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes.trt import cuda as cuda_module
from ofa_deploy.runtimes.trt.cuda import Cuda, gpu
from tests.runtimes.cuda_fake import FakeCudaLibrary


def test_a_device_is_described() -> None:
    cuda = Cuda(library=FakeCudaLibrary((12, 0), name="RTX 5090"))
    assert (cuda.name, cuda.capability) == ("RTX 5090", (12, 0))


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_module, "LIBRARY", "libcuda-that-is-nowhere.so.1")
    gpu.cache_clear()
    with pytest.raises(DeviceError, match="no NVIDIA driver here .libcuda-that-is-nowhere"):
        gpu()


def test_gpus_are_counted_as_where_models_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the driver is there: it asks once."""
    orders = []

    def load(name: str) -> object:
        orders.append(os.environ["CUDA_DEVICE_ORDER"])
        return FakeCudaLibrary()

    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setattr("ctypes.CDLL", load)
    Cuda()
    assert orders == ["PCI_BUS_ID"]


def test_without_a_device() -> None:
    with pytest.raises(DeviceError, match="cuda: cuInit: error 100, no CUDA-capable device"):
        Cuda(library=FakeCudaLibrary(None))


@pytest.mark.parametrize("ordinal", [1, -1])
def test_a_device_that_is_not_there(ordinal: int) -> None:
    with pytest.raises(DeviceError, match=f"expected a device {ordinal}, found 1 devices"):
        Cuda(ordinal, library=FakeCudaLibrary())


@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    dtype=st.sampled_from([np.float32, np.float16, np.int8]),
    extra=st.integers(0, 9),
)
def test_what_goes_up_comes_back(shape: list[int], dtype: type[np.generic], extra: int) -> None:
    library = FakeCudaLibrary()
    cuda = Cuda(library=library)
    sent = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)
    buffer = cuda.allocate(sent.nbytes + extra)
    cuda.upload(buffer, sent)
    found = np.full_like(sent, 3)
    cuda.download(found, buffer)
    cuda.synchronize()
    np.testing.assert_array_equal(found, sent)
    assert library.copies == [sent.nbytes, sent.nbytes]


def test_memory_is_given_back() -> None:
    library = FakeCudaLibrary()
    cuda = Cuda(library=library)
    buffer = cuda.allocate(100)
    assert [len(block) for block in library.memory.values()] == [100]
    del buffer
    gc.collect()
    assert not library.memory


def test_no_room() -> None:
    cuda = Cuda(library=FakeCudaLibrary(room=1000))
    with pytest.raises(DeviceError, match="cuda: cuMemAlloc_v2: error 2, out of memory"):
        cuda.allocate(1001)


@pytest.mark.parametrize("array", [np.zeros(11, np.float32), np.zeros((4, 4), np.int8).T[:2]])
def test_an_array_that_does_not_fit(array: np.ndarray) -> None:
    cuda = Cuda(library=FakeCudaLibrary())
    buffer = cuda.allocate(40)
    with pytest.raises(DeviceError, match="expected at most 40 contiguous bytes"):
        cuda.upload(buffer, array)
    with pytest.raises(DeviceError, match="expected at most 40 contiguous bytes"):
        cuda.download(array, buffer)


def test_a_thread_enters_the_context_first() -> None:
    cuda = Cuda(library=FakeCudaLibrary())
    found: list[object] = []

    def work(enter: bool) -> None:
        try:
            if enter:
                cuda.enter()
            cuda.synchronize()
            found.append("done")
        except DeviceError as error:
            found.append(str(error))

    for enter in (False, True):
        thread = threading.Thread(target=work, args=(enter,))
        thread.start()
        thread.join()
    assert found == ["cuda: cuStreamSynchronize: error 201, invalid device context", "done"]


def test_an_error_without_a_text() -> None:
    library = FakeCudaLibrary()
    cuda = Cuda(library=library)
    library.failures["cuStreamSynchronize"] = 12345
    with pytest.raises(DeviceError, match="cuStreamSynchronize: error 12345$"):
        cuda.synchronize()
