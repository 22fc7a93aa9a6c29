"""Published weights: in the cache, whole and verified, or a message that says what to do."""

from __future__ import annotations

import glob
import hashlib
import http.client
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlparse

import torch

from ..errors import WeightsError

__all__ = ["ensure_cached", "network_timeout", "one_line"]

TIMEOUT_SECONDS = 15.0
"""Longest silence of a server before a download is given up."""

STALE_SECONDS = 10 * TIMEOUT_SECONDS
"""Age of a part of a download to which nothing is added any more: whoever wrote it was killed."""

_HASH = re.compile(r"-([0-9a-f]{8,})\.")
"""torch.hub's rule: the file's name carries the beginning of its SHA-256."""

_BLOCK = 1 << 20


def ensure_cached(model: str, url: str, *, weights_id: str) -> Path:
    """Make sure that torch.hub's cache has the file of ``url``, downloading it if need be.

    A download becomes visible only when complete and verified. A file that is already there is
    verified as well, since people copy files there by hand. Parts of the file that downloads left
    when they were killed are removed before another one begins.

    Args:
        model: the network's name, for messages.
        url: where the file is published.
        weights_id: the weights' name, for messages.

    Returns:
        The cached file.

    Raises:
        WeightsError: neither cached nor downloadable, the cached file is damaged, or there is no
            folder that it could be in.
    """
    name = Path(urlparse(url).path).name
    try:
        path = Path(torch.hub.get_dir()).expanduser() / "checkpoints" / name
    except RuntimeError as error:  # a user without a home
        raise WeightsError(
            f"weights {weights_id} of {model} have no folder to be kept in ({one_line(error)}): "
            "set TORCH_HOME to one, or give --weights FILE, or --weights random:0 for an "
            "untrained network"
        ) from error
    match = _HASH.search(name)
    prefix = match.group(1) if match else None
    try:
        was_there = path.exists()
        if not was_there:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_parts(path)
            with network_timeout():
                torch.hub.download_url_to_file(url, str(path), prefix, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise WeightsError(
            f"weights {weights_id} of {model} are neither cached nor downloadable "
            f"({one_line(error)}): put {name} (from {url}) at {path}, or give --weights FILE, "
            "or --weights random:0 for an untrained network"
        ) from error
    if was_there and prefix is not None and not _sha256(path, weights_id).startswith(prefix):
        raise WeightsError(
            f"the cached file {path} of weights {weights_id} is damaged or another file (its "
            f"SHA-256 does not begin with {prefix}); delete it, or put a good one in its place"
        )
    return path


def one_line(error: Exception) -> str:
    """The error's kind and text, for the middle of a message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def network_timeout() -> Iterator[None]:
    """Give up on a silent server: urllib's callers here offer no timeout of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _remove_parts(path: Path) -> None:
    """Removes what killed downloads of a file have left beside it, under torch.hub's names."""
    for part in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):  # another job has removed it, or only it may be read
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()


def _sha256(path: Path, weights_id: str) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise WeightsError(
            f"the cached file {path} of weights {weights_id} cannot be read: {error}"
        ) from error
    return digest.hexdigest()
