"""How training uses the machine: memory it keeps, threads side by side, kernels that repeat."""

import ctypes
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import Barrier

import torch

__all__ = ["keep_freed_memory", "pass_threads", "repeatable_kernels", "threads_for"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_freed_memory() -> None:
    """Tell glibc's malloc to reuse freed activations, whichever thread freed them.

    By default every large tensor is mapped and unmapped anew, and each step pays for the page
    faults: up to a third of the time of training small networks on a CPU. Elsewhere than on glibc
    nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # glibc's own ceiling for this setting
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)


def repeatable_kernels(device: torch.device) -> None:
    """On a GPU hold cuDNN to kernels that give the same bits each time, chosen without timing."""
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def threads_for(passes: int, threads: int) -> Executor | None:
    """Threads for steps of so many passes, which share ``threads``; None if one has them all."""
    count = min(passes, threads)
    return pass_threads(count, threads // count) if count > 1 else None


def pass_threads(count: int, threads: int) -> Executor:
    """Threads on which torch's operations take ``threads`` threads each.

    Operations of small networks gain little from a second thread: passes side by side gain more.

    Raises:
        RuntimeError: if the system starts no more threads.
    """
    own = torch.get_num_threads()
    ready = Barrier(count)

    def prepare() -> None:
        torch.get_num_threads()  # only now, or its first use would undo the next line
        torch.set_num_threads(threads)
        ready.wait()

    executor = ThreadPoolExecutor(count, "pass")
    try:
        for each in [executor.submit(prepare) for _ in range(count)]:
            each.result()
    except RuntimeError:  # the system gives no more: the others would wait for one that never comes
        ready.abort()
        executor.shutdown()
        raise
    torch.set_num_threads(own)  # MKL's is one number for the whole process
    return executor
