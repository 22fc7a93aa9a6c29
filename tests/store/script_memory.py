"""How much memory a long video takes. Argument: the output. Prints MiB for 1 and for 41 chunks."""

from __future__ import annotations

import sys
from pathlib import Path

from helpers import IDENTITY, LAYERS, chunk, source  # type: ignore[import]

from rrm_extract.jobs.memory import peak_memory
from rrm_extract.store import FeatureFile, OutputStore, export, same_content


def write_run(output: Path, n_chunks: int) -> None:
    one = chunk("long.mp4", frames=240, width=4096)
    with OutputStore(output, IDENTITY) as store:
        with store.part(source("long.mp4"), feature_shape=(4096,)) as part:
            for _ in range(n_chunks):
                part.append(one)
            part.finish(layers=LAYERS, attrs={})
        store.finish([source("long.mp4")], [], {}, complete=True)
    assert same_content(output, output) == []
    export(output, output.with_suffix(".out"), layout="flat")
    with FeatureFile(output) as file:
        file["long.mp4"].check()


out = Path(sys.argv[1])
write_run(out / "short.h5", 1)
print(peak_memory() >> 20)
write_run(out / "long.h5", 41)
print(peak_memory() >> 20)
