"""Digests of files, and of this package's own code."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import rrm_extract

__all__ = ["digest_of_code", "file_digest"]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of_code() -> str:
    """SHA-256 of all of this package, networks described in its data too: other code, other digits.

    Raises:
        OSError: a file cannot be read.
    """
    root = Path(str(rrm_extract.__file__)).parent
    native = find_spec("rrm_extract.engine._native")  # need not lie beside the rest
    compiled = [] if native is None or native.origin is None else [Path(native.origin)]
    ours = [path for path in sorted(root.rglob("*")) if path.suffix in {".py", ".cfg", ".names"}]
    digest = hashlib.sha256()
    for path in [*ours, *compiled]:
        digest.update(f"{path.name}\0{file_digest(path)}\0".encode())
    return digest.hexdigest()
