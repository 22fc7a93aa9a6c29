"""Runs under file-size limits. Arguments: a folder, then limits in bytes.

Prints one JSON object per limit: how many videos were done, whether the merge was, and the error.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from helpers import IDENTITY, LAYERS, ROOT, chunk, source  # type: ignore[import]

from rrm_extract.errors import StoreWriteError
from rrm_extract.store import OutputStore, save_chunk

for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    done: list[str] = []
    merged = False
    error = ""
    try:
        with OutputStore(Path(sys.argv[1]) / f"{limit}.h5", IDENTITY) as store:
            sources = [source(f"{i}.mp4") for i in range(3)]
            for what in sources:
                with store.part(what, feature_shape=(512,)) as part:
                    for index in range(3):
                        one = chunk(what.video_id, index, frames=240, width=512)
                        save_chunk(store.chunk_path(what, index), one)
                        part.append(one)
                    part.finish(layers=LAYERS, attrs={})
                done.append(what.video_id)
            merged = store.finish(sources, [], ROOT, complete=True)
    except StoreWriteError as caught:
        error = str(caught)
    print(json.dumps({"limit": limit, "done": done, "merged": merged, "error": error}), flush=True)
