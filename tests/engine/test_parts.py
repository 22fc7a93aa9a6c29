"""Networks of several native parts that read the same tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine import NativeNetwork
from rrm_extract.engine.build import NativePart
from rrm_extract.engine.compiled import CompiledNetwork
from tests.engine.running import native, program_of

SHAPE = (3, 40, 40)


class Shortcut(nn.Module):
    """A residual block: its input is read before and after what parts it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 256, 1)
        self.shortcut = nn.Conv2d(16, 256, 1)

    def between(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.stem(x))
        result: Tensor = self.second(self.between(self.first(x))) + self.shortcut(x)
        return result


class AroundAnIsland(Shortcut):
    def between(self, y: Tensor) -> Tensor:
        return F.gelu(y)


class AroundAMove(Shortcut):
    def between(self, y: Tensor) -> Tensor:
        return y.transpose(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(x), 0.3)
        result: Tensor = self.second(self.between(self.first(x))) + self.shortcut(x)
        return result


def frames_of(count: int) -> Tensor:
    """Frames of noise of which about a third of the rows is other than before."""
    generator = torch.Generator().manual_seed(1)
    frame = torch.randn(SHAPE, generator=generator)
    frames = []
    for number in range(count):
        frame = frame.clone()
        begin = 5 * (number % 5)
        frame[:, begin : begin + 12] = torch.randn(3, 12, 40, generator=generator)
        frames.append(frame + 1e-3 * number)
    return torch.stack(frames)


def counted(network: NativeNetwork) -> dict[str, tuple[float, float]]:
    """Non-zero deltas, and what is held back, of each layer in the last frame, from its part."""
    found = {}
    for part, lane, steps in zip(
        network._shared.parts, network._lanes, network.sequence, strict=True
    ):
        if not isinstance(part, NativePart):
            continue
        counts = np.asarray(lane.counts()).reshape(len(part.deltas), -1, 3)
        held = np.asarray(lane.truncated()).reshape(len(part.deltas), -1)
        for step in steps.steps:  # type: ignore[union-attr]
            if hasattr(step, "delta"):
                place = part.deltas.index(step.delta)
                dense = bool(counts[place, -1, 2])
                share = 1.0 if dense else counts[place, -1, 1] / step.delta.elements
                found[step.name] = (float(share), float(held[place, -1]))
    return found


@pytest.mark.parametrize("kind", [AroundAnIsland, AroundAMove])
def test_each_part_counts_its_own_layers(kind: type[Shortcut]) -> None:
    torch.manual_seed(0)
    network = native(program_of(kind()), SHAPE, threshold=1e-2)
    network.track()
    (_,), seen = network.run(frames_of(8))
    assert seen.truncated is not None
    found = counted(network)
    names = [op.name for op in network.program.linear_ops]
    assert found["first"] != found["shortcut"], "one runs dense, the other on lists"
    assert seen.truncated[-1].tolist() == [found[name][1] for name in names]
    macs = np.array([cost.macs for cost in network.stats()])
    shares = np.array([found[name][0] for name in names])
    assert float(seen.work[-1]) == pytest.approx(shares @ macs / macs.sum())


def test_the_same_without_torch() -> None:
    torch.manual_seed(0)
    network = native(program_of(AroundAMove()), SHAPE, threshold=1e-2)
    plan = network.compiled()
    assert plan is not None
    compiled = CompiledNetwork(plan)
    for net in (network, compiled):
        net.track()
    frames = frames_of(8)
    expected, (_, seen) = network.run(frames)[1], compiled.run(frames.numpy())
    assert expected.truncated is not None
    np.testing.assert_array_equal(seen.truncated, expected.truncated.numpy())
    np.testing.assert_array_equal(seen.work, expected.work.numpy())
