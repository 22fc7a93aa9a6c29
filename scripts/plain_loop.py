"""What people write today: decode with PyAV, torchvision's transform, the dense network in batches.

The rival of ``bench_e2e.py``. Run as a process of its own, so that imports count for both sides.

    python scripts/plain_loop.py --model resnet18 --weights random:0 --threads 2 -o out.npz CLIP...
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import nn

from rrm_extract.models import load_model

BATCH = 16


def sampled(
    path: Path, fps: Fraction, *, threads: int
) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """(ordinal, (H, W, 3) uint8) of the frame shown at each multiple of 1 / fps."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        rate = stream.average_rate or Fraction(25)
        wanted, image = 0, None
        for ordinal, frame in enumerate(container.decode(stream)):
            while wanted * rate < (ordinal + 1) * fps:
                if image is None:
                    image = frame.to_ndarray(format="rgb24")
                yield ordinal, image
                wanted += 1
            image = None


def feature_extractor(module: nn.Module) -> nn.Module:
    """The network without its classifier, so that both sides compute the same feature."""
    from torchvision.models.feature_extraction import create_feature_extractor

    from rrm_extract.graph import default_layer, trace

    layer = default_layer(trace(module))
    extractor: nn.Module = create_feature_extractor(module, {layer: "feature"})
    return extractor


def main() -> None:
    """Extracts features of the clips and prints JSON: frames, and seconds by stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--fps", type=Fraction, default=Fraction(24))
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    model = load_model(arguments.model, weights=arguments.weights)
    network = feature_extractor(model.module).to(memory_format=torch.channels_last)
    seconds = {"decode": 0.0, "preprocess": 0.0, "network": 0.0, "write": 0.0}
    features: dict[str, np.ndarray[Any, Any]] = {}
    frames = 0
    with torch.inference_mode():
        for clip in arguments.clips:
            rows, ordinals = [], []
            source = sampled(clip, arguments.fps, threads=arguments.threads)
            while True:
                began = time.perf_counter()
                batch = [item for _, item in zip(range(BATCH), source, strict=False)]
                seconds["decode"] += time.perf_counter() - began
                if not batch:
                    break
                began = time.perf_counter()
                pixels = torch.from_numpy(np.stack([image for _, image in batch]))
                x = model.transform(pixels.permute(0, 3, 1, 2))
                x = x.contiguous(memory_format=torch.channels_last)
                seconds["preprocess"] += time.perf_counter() - began
                began = time.perf_counter()
                output = network(x)["feature"]
                rows.append((output.mean((2, 3)) if output.dim() == 4 else output).numpy())
                seconds["network"] += time.perf_counter() - began
                ordinals += [ordinal for ordinal, _ in batch]
            features[f"{clip.name}/features"] = np.concatenate(rows)
            features[f"{clip.name}/frame_index"] = np.array(ordinals)
            frames += len(ordinals)
    began = time.perf_counter()
    np.savez(arguments.output, **features)  # type: ignore[arg-type]
    seconds["write"] += time.perf_counter() - began
    print(json.dumps({"frames": frames, "seconds": seconds}))


if __name__ == "__main__":
    main()
