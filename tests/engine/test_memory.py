"""What a lane reports after there was no memory for a frame."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
resource = pytest.importorskip("resource", reason="needs limits of a process")

CODE = """
import resource
import torch
from torch import nn
from rrm_extract.engine import NativeNetwork
from rrm_extract.graph import fold_batch_norm, trace

torch.manual_seed(0)
torch.set_num_threads(1)
layers = []
for step in range(6):
    layers += [nn.Conv2d(3 if step == 0 else 64, 64, 3, padding=1), nn.ReLU()]
layers.append(nn.AdaptiveAvgPool2d(1))  # what PyTorch makes is small: large memory is the engine's
program = fold_batch_norm(trace(nn.Sequential(*layers).eval()))
network = NativeNetwork(program, input_shape=(3, 96, 96), threshold=0.01, batch=4)
frames = torch.rand(8, 3, 96, 96)
frames[1:, :, 8:] = frames[:1, :, 8:]
fresh = network.fork()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
failed = 0
for room in range(0, 200 << 20, 1 << 20):
    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
    try:
        network.run(frames)
        break
    except MemoryError:
        failed += 1
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
network.reset()
(result,), seen = network.run(frames)
(expected,), wanted = fresh.run(frames)
assert torch.equal(result, expected), "features"
assert torch.equal(seen.density, wanted.density), (seen.density, wanted.density)
assert torch.equal(seen.density_delta, wanted.density_delta)
print(failed)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")
def test_nothing_half_done_stays() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "else nothing is tested"
