"""A native network as plain data, and what runs it. Needs no torch.

PyTorch takes half a gigabyte in every process and seconds to import. It is needed to find out what
a network consists of, but not to run one whose operations are all native: workers run those from
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrm_extract.engine.kernels import native_module
from rrm_extract.engine.passes import Passes
from rrm_extract.engine.repeats import Repeats
from rrm_extract.engine.seen import CountedLayer, Seen, joined, seen_by
from rrm_extract.engine.tape import Call, replayed
from rrm_extract.errors import EngineError

__all__ = [
    "Assembled",
    "CompiledNetwork",
    "CompiledOutput",
    "CompiledPart",
    "CompiledPlan",
    "NotFiniteError",
    "Reordered",
    "assembled",
]

Floats = NDArray[np.float32]


class NotFiniteError(EngineError):
    """Frames that only PyTorch computes as PyTorch does."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CompiledPart:
    """Steps that run without a break.

    Attributes:
        calls: what makes the native network.
        inputs, exports: numbers of the tensors that go in and come out.
        deltas: how many inputs of linear layers it counts.
    """

    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    exports: tuple[int, ...]
    deltas: int


@dataclass(frozen=True, kw_only=True)
class Reordered:
    """A tensor with its dimensions (T, C, H, W) in another order."""

    source: int
    order: tuple[int, ...]
    out: int


@dataclass(frozen=True, kw_only=True, eq=False)
class CompiledOutput:
    """How an output is made of tensors.

    Attributes:
        sources: numbers of the tensors.
        index: for each element its place in the flattened sources one after the other; None for all
            of them as they are.
        shape: of one frame.
    """

    sources: tuple[int, ...]
    index: NDArray[np.int64] | None
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Assembled:
    """A tensor that is made of others between two parts."""

    whole: CompiledOutput
    out: int


@dataclass(frozen=True, kw_only=True, eq=False)
class CompiledPlan:
    """A network whose operations are all native; it can be pickled.

    Attributes:
        parts: in order.
        frames: number of the tensor that is the network's input.
        outputs: one for each output of the network.
        layers: the linear layers, in order.
        counts: of each layer the part and the position among its counts.
        isa: instruction set.
        precision: "fp32" or "bf16".
        batch: most frames that pass a layer together.
        loses: whether what is truncated is lost, with the policy "paper".
    """

    parts: tuple[CompiledPart | Reordered | Assembled, ...]
    frames: int
    outputs: tuple[CompiledOutput, ...]
    layers: tuple[CountedLayer, ...]
    counts: tuple[tuple[int, int], ...]
    isa: str
    precision: str
    batch: int
    loses: bool


class CompiledNetwork:
    """Runs a :class:`CompiledPlan`, with a state of its own.

    Args:
        plan: the network; its arrays are used as they are, wherever they lie.

    Raises:
        EngineError: the native engine is not part of this installation.
    """

    def __init__(self, plan: CompiledPlan) -> None:
        native = native_module()
        self.plan = plan
        self._lanes: list[Any] = [
            native.Lane(self._network(part)) if isinstance(part, CompiledPart) else None
            for part in plan.parts
        ]
        self._fresh = True
        self._passes = Passes()
        self._tracks = False
        self._repeats: Repeats[Floats] = Repeats(np.concatenate, loses=plan.loses)

    def _network(self, part: CompiledPart) -> Any:
        plan = self.plan
        return replayed(
            native_module(), part.calls, isa=plan.isa, precision=plan.precision, batch=plan.batch
        )

    def reset(self) -> None:
        """Forgets the past: the next frame is a key frame."""
        for lane in self._lanes:
            if lane is not None:
                lane.reset()
        self._fresh = True
        self._passes.reset()
        self._repeats.forget()

    def key_frame(self) -> None:
        """The next frame is a key frame; which layers run dense is not forgotten."""
        for lane in self._lanes:
            if lane is not None:
                lane.key_frame()
        self._fresh = True
        self._passes.forget_frame()
        self._repeats.forget()

    def track(self) -> None:
        """Has what is truncated counted from here on; the next frame is a key frame."""
        self._tracks = True
        for lane in self._lanes:
            if lane is not None:
                lane.track(True)
        self._fresh = True
        self._passes.reset()
        self._repeats.forget()

    def scale_thresholds(self, factor: float) -> None:
        """All thresholds times a factor, from the next frame on."""
        for lane in self._lanes:
            if lane is not None:
                lane.scale_thresholds(factor)
        self._repeats.scaled(factor)

    def run(self, frames: Floats) -> tuple[tuple[Floats, ...], Seen]:
        """The outputs for T consecutive frames.

        Args:
            frames: (T, C, H, W) float32, contiguous.

        Returns:
            One (T, ...) array for each output, and what the layers saw. A frame that equals the
            one before has its outputs, and cost nothing.

        Raises:
            NotFiniteError: infinities or NaN came up. The past is forgotten, whatever is raised.
        """
        try:
            outputs, seen, _ = self._repeats.run(frames, self._compute)
        except BaseException:  # some layers are a frame further than others
            self.reset()
            raise
        return outputs, seen

    def _compute(self, frames: Floats) -> tuple[tuple[Floats, ...], Seen]:
        outputs: list[tuple[Floats, ...]] = []
        seen: list[Seen] = []
        for begin in range(0, len(frames), self.plan.batch):
            batch = frames[begin : begin + self.plan.batch]
            for some in self._passes.divide(batch):
                result = self._attempt(batch[some])
                outputs.append(result[0])
                seen.append(result[1])
        return tuple(np.concatenate(parts) for parts in zip(*outputs, strict=True)), joined(seen)

    def _attempt(self, frames: Floats) -> tuple[tuple[Floats, ...], Seen]:
        arrays: dict[int, Floats] = {self.plan.frames: frames}
        counts: dict[int, NDArray[np.int64]] = {}
        truncated: dict[int, NDArray[np.float64]] = {}
        for number, (part, lane) in enumerate(zip(self.plan.parts, self._lanes, strict=True)):
            if isinstance(part, Reordered):
                arrays[part.out] = arrays[part.source].transpose(part.order)  # a view
                continue
            if isinstance(part, Assembled):
                arrays[part.out] = _output(part.whole, arrays)
                continue
            if not lane.run([arrays[tensor] for tensor in part.inputs]):
                # The caller resets the lanes: a NaN must not stay in an accumulator.
                raise NotFiniteError("a value that is not finite came up in the network")
            for position, tensor in enumerate(part.exports):
                arrays[tensor] = lane.output(position)
            counts[number] = np.asarray(lane.counts()).reshape(part.deltas, len(frames), 3)
            truncated[number] = np.asarray(lane.truncated()).reshape(part.deltas, len(frames))
        outputs = tuple(_output(output, arrays) for output in self.plan.outputs)
        seen = seen_by(
            self.plan.layers,
            [counts[part][position] for part, position in self.plan.counts],
            frames=len(frames),
            fresh=self._fresh,
            truncated=[truncated[part][position] for part, position in self.plan.counts]
            if self._tracks
            else None,
        )
        self._fresh = False
        return outputs, seen


def assembled(
    sources: Sequence[Floats], index: NDArray[np.int64] | None, shape: tuple[int, ...]
) -> Floats:
    """Tensors of T frames made of others, contiguous.

    Args:
        sources: each (T, ...) float32.
        index: as for :class:`CompiledOutput`.
        shape: of one frame of the result.
    """
    frames = len(sources[0])
    flat = [source.reshape(frames, -1) for source in sources]
    whole = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
    return (whole if index is None else whole.take(index, axis=1)).reshape(frames, *shape)


def _output(output: CompiledOutput, arrays: dict[int, Floats]) -> Floats:
    return assembled([arrays[source] for source in output.sources], output.index, output.shape)
