"""What the tests of the store share: made-up videos, and the shortest way to write them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rrm_extract.store import ChunkResult, FailureRecord, OutputStore, Source
from rrm_extract.store.shield import ShieldedFile

IDENTITY: Mapping[str, Any] = {"model": "resnet18", "threshold": 1e-4, "chunk": 10.0}
ROOT = {"model": "resnet18", "seconds_total": 1.5}
LAYERS = {"name": ["conv1", "fc"], "macs": np.array([118, 5]), "speedup": np.array([1.5, 2.0])}


def source(video_id: str, *, size: int = 1000, mtime_ns: int = 1) -> Source:
    return Source(video_id=video_id, size=size, mtime_ns=mtime_ns)


def chunk(
    video_id: str,
    index: int = 0,
    *,
    frames: int = 5,
    width: int = 8,
    layers: int = 2,
    audited: bool = False,
) -> ChunkResult:
    """The same numbers for the same arguments, whoever asks; some errors if it is audited."""
    random = np.random.default_rng([*video_id.encode("utf-8", "surrogateescape"), index])
    order = np.arange(frames, dtype=np.int64) + 100 * index
    error = np.where(order % 3 == 1, order / 1000, np.nan).astype(np.float32)
    return ChunkResult(
        index=index,
        features=random.standard_normal((frames, width), dtype=np.float32),
        timestamps=order / 24,
        pts=order * 512,
        frame_index=order,
        key_frame=np.arange(frames) == 0,
        work=random.random(frames, dtype=np.float32),
        density=random.random((frames, layers), dtype=np.float32),
        density_delta=random.random((frames, layers), dtype=np.float32),
        audit_error=error if audited else None,
        estimate=(order / 900).astype(np.float32) if audited else None,
        attrs={"n_decoded": frames},
        damage="",
    )


def write_video(
    store: OutputStore,
    what: Source,
    *,
    chunks: int = 2,
    status: str = "ok",
    dtype: str = "float32",
    width: int = 8,
    audited: bool = False,
) -> None:
    with store.part(what, feature_shape=(width,), dtype=dtype) as part:
        for index in range(chunks):
            part.append(chunk(what.video_id, index, width=width, audited=audited))
        attrs = {"n_decoded": part.n_frames, "time_base": "1/12288", "seconds_decode": 0.25}
        part.finish(layers=LAYERS, attrs=attrs, status=status)


def expected_features(video_id: str, *, chunks: int = 2, width: int = 8) -> np.ndarray:
    return np.concatenate([chunk(video_id, i, width=width).features for i in range(chunks)])


def write_file(
    output: Path,
    videos: Iterable[str | Source],
    failures: Iterable[FailureRecord] = (),
    *,
    complete: bool = True,
    overwrite: bool = False,
    identity: Mapping[str, Any] = IDENTITY,
    **options: Any,
) -> Path:
    """A whole run: every video that is not done yet, then the file."""
    sources = [source(v) if isinstance(v, str) else v for v in videos]
    with OutputStore(output, identity, overwrite=overwrite) as store:
        for what in sources:
            if store.status(what) is None:
                write_video(store, what, **options)
        store.finish(sources, failures, ROOT, complete=complete)
    return output


def failure(video_id: str, message: str = "moov atom not found", **known: int) -> FailureRecord:
    return FailureRecord(video_id, "open", "ClipOpenError", message, attempts=1, **known)


def names_in(folder: Path) -> set[str]:
    """What a user sees in a folder."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def flip(path: Path, offset: int) -> None:
    """Damage one byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def offset_of(path: Path, data: bytes) -> int:
    found = path.read_bytes().find(data)
    assert found >= 0
    return found


class GuardedWrites:
    """Whether an interrupt would be heard in the midst of HDF5's writing, which must not be.

    Only the main thread hears of interrupts, and of SIGINT only while it is not blocked.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.count = 0
        """Writes to files in the folder."""
        self.unguarded = 0
        """Those of them in which an interrupt would be heard."""
        write = ShieldedFile.write

        def watched(file: ShieldedFile, buffer: object) -> int:
            if folder in file.path.parents:
                self.count += 1
                blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
                in_main = threading.current_thread() is threading.main_thread()
                self.unguarded += in_main and not blocked
            return write(file, buffer)

        monkeypatch.setattr(ShieldedFile, "write", watched)
