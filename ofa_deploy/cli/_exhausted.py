"""What a machine ran out of, told from what libraries raise."""

import re

from ofa_deploy.terminal import size

__all__ = ["exhausted"]

# torch has no class of its own for memory of the CPU, nor Python for threads.
_NO_MEMORY = re.compile(r"DefaultCPUAllocator|std::bad_alloc")
_ASKED = re.compile(r"tried to allocate (\d+) bytes")
_NO_THREAD = "can't start new thread"


def exhausted(error: MemoryError | RuntimeError) -> str:
    """What is short, and what to do; nothing where that is not why it failed."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not loaded here
        return "the GPU has too little memory; lower --batch, or free what others hold"
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        asked = _ASKED.search(text)
        what = f" for the {size(int(asked[1]))} that it was asked for" if asked else ""
        return (
            f"this machine has too little memory{what}; end what else holds memory, or lower "
            "--batch or --threads where the command has them"
        )
    if _NO_THREAD in text:
        return (
            "expected to start one more thread, found that this machine allows none; end other "
            "programs, lower --threads where the command has it, or raise the limit (ulimit -u)"
        )
    return ""
