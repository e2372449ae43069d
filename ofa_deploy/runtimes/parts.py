"""Artefacts of several files: a zip of named parts, stored as they are."""

import io
import zipfile
from collections.abc import Mapping, Sequence

__all__ = ["pack_parts", "unpack_parts"]


def pack_parts(parts: Mapping[str, bytes]) -> bytes:
    """An artefact of parts by name; the same parts give the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return packed.getvalue()


def unpack_parts(artefact: bytes, names: Sequence[str]) -> list[bytes]:
    """The parts of these names, in their order; together no larger than the artefact.

    Raises:
        ValueError: if it is no such zip, is damaged, has other parts, or has compressed ones, which
            may take up any memory.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(artefact)) as archive:
            parts = archive.infolist()
            found = [part.filename for part in parts]
            if sorted(found) != sorted(names):
                raise ValueError(f"expected {' and '.join(names)}, found {found[:4]}")
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise ValueError("expected parts as they are, found compressed ones")
            if sum(part.file_size for part in parts) > len(artefact):
                raise ValueError("expected parts that are within the file, found greater ones")
            return [archive.read(name) for name in names]
    except (EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(str(error)) from None
