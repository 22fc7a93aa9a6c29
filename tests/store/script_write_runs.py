"""Run after run on one output, each with more videos, until killed. Argument: the output."""

from __future__ import annotations

import sys
from pathlib import Path

from helpers import IDENTITY, ROOT, chunk, failure, source, write_video  # type: ignore[import]

from rrm_extract.store import OutputStore, save_chunk

print("ready", flush=True)
for count in range(4, 400, 4):
    sources = [source(f"folder {i % 3}/clip{i}.mp4") for i in range(count)]
    with OutputStore(Path(sys.argv[1]), IDENTITY) as store:
        for what in sources:
            if store.status(what) is None:
                for index in range(2):
                    save_chunk(store.chunk_path(what, index), chunk(what.video_id, index))
                write_video(store, what)
        store.record_failure(failure("bad.mp4"))
        store.finish(sources, [], ROOT, complete=True)
