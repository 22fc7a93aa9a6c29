"""Finishes an output of one video, then writes to it again until killed. Argument: the output."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from helpers import IDENTITY, source, write_file  # type: ignore[import]

from rrm_extract.store import OutputStore

PATH = Path(sys.argv[1])
write_file(PATH, ["clip.mp4"])
with OutputStore(PATH, IDENTITY) as store:
    print(store.status(source("clip.mp4")), flush=True)
    while True:
        time.sleep(60)
