"""Bytes in a file that are known to be as they were written.

TensorRT may crash on others, so what was written half, or changed since, must be told from what is
whole. Agents carry this file: standard library only, on Python 3.8 too.
"""

from __future__ import annotations

import hashlib

__all__ = ["TIMING_CACHE", "sealed", "unsealed"]

TIMING_CACHE = "timing cache 1"
_DIGEST = 64


def sealed(kind: str, data: bytes) -> bytes:
    """The bytes behind a line that says their kind, and their SHA-256."""
    return _head(kind) + hashlib.sha256(data).hexdigest().encode() + data


def unsealed(kind: str, found: bytes) -> bytes | None:
    """The bytes that ``sealed`` was given; None if they are not whole, or of another kind."""
    head = _head(kind)
    body = found[len(head) :]
    digest, data = body[:_DIGEST], body[_DIGEST:]
    whole = found[: len(head)] == head and hashlib.sha256(data).hexdigest().encode() == digest
    return data if whole else None


def _head(kind: str) -> bytes:
    return f"ofa-deploy {kind}\n".encode()
