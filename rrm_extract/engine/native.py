"""A Program on the native engine: the same recurrence as the readable one, fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.engine.batches import island_without_batches
from rrm_extract.engine.build import NativePart, Packed, build_part
from rrm_extract.engine.compile import compiled_plan
from rrm_extract.engine.compiled import CompiledPlan, assembled
from rrm_extract.engine.connect import connect
from rrm_extract.engine.forms import set_break_evens
from rrm_extract.engine.given import array_of, batch_size, frame_shape, tensor_of
from rrm_extract.engine.kernels import isa_of_this_process, native_module
from rrm_extract.engine.lower import lower
from rrm_extract.engine.parts import (
    Assembly,
    Between,
    Island,
    Known,
    Lowered,
    Opaque,
    Part,
    Rearrangement,
    mapped,
)
from rrm_extract.engine.passes import Passes
from rrm_extract.engine.plan import PlanTensor
from rrm_extract.engine.repeats import Repeats
from rrm_extract.engine.seen import Seen, joined, seen_by, seen_of
from rrm_extract.engine.shared import Shared
from rrm_extract.errors import ConfigError, EngineError
from rrm_extract.graph import Program
from rrm_extract.rrm import (
    Channels,
    FrameDensities,
    LayerCost,
    Policy,
    RecurrentNetwork,
    by_frame,
    layer_thresholds,
)
from rrm_extract.rrm.frames import refuse_other_numbers
from rrm_extract.rrm.given import factor_of_thresholds
from rrm_extract.rrm.truncate import POLICIES

__all__ = ["NativeNetwork", "isa_of_this_process", "native_module"]

BATCH = 8
"""Frames that pass one layer together, so that large weights are read once for all of them."""

GROUP_BLOCKS = {"fp32": 4, "bf16": 8}
"""Blocks of channels in a list's group: their weights for nine taps fill the first-level cache."""


@dataclass
class _Totals:
    """Sums over frames, for the accounting."""

    density: float = 0.0
    density_delta: float = 0.0  # delta frames only
    frames: int = 0
    delta_frames: int = 0


class NativeNetwork:
    """A network that computes only what changed since the frame before, on the native kernels.

    Stands for :class:`rrm_extract.rrm.RecurrentNetwork`: without ``adaptive`` the same results up
    to the rounding of a sum's order, and the same statistics, of a thousand frames. With it, layers
    where most inputs change run dense; they truncate nothing, and count as computed in full.

    Args:
        program: the network, on the CPU, batch normalisation folded.
        input_shape: (C, H, W) of a frame.
        threshold, policy: as for the readable engine.
        precision: "fp32", or "bf16": weights and deltas in bfloat16, sums in fp32.
        adaptive: whether layers may run dense; without, only the first frame does, and one in a
            thousand after it, in which sums are made anew and nothing is truncated.
        batch: most frames that pass a layer together; one where an operation without a kernel would
            mix them.
        packed: the weights in the kernels' order, from another network's ``packed``.

    Raises:
        ConfigError: a threshold is negative or not a number, the policy or the precision is
            unknown, or the shape or the batch is impossible.
        LayerError: a threshold names no convolution or fully-connected layer.
        EngineError: the native engine is not part of this installation, RRM_ISA does not fit, the
            network cannot run on such a frame, or an output has no row for each frame.
    """

    def __init__(
        self,
        program: Program,
        *,
        input_shape: tuple[int, int, int],
        threshold: float | Mapping[str, float] = 1e-4,
        policy: Policy = "bounded",
        precision: str = "fp32",
        adaptive: bool = True,
        batch: int = BATCH,
        packed: Mapping[str, Packed] | None = None,
    ) -> None:
        if precision not in GROUP_BLOCKS:
            msg = f"precision {precision!r} is unknown; expected one of {', '.join(GROUP_BLOCKS)}"
            raise ConfigError(msg)
        if policy not in POLICIES:
            msg = f"policy {policy!r} is unknown; expected one of {', '.join(POLICIES)}"
            raise ConfigError(msg)
        native = native_module()
        isa = isa_of_this_process()
        if not isinstance(program, Program):
            msg = f"a network of type {type(program).__name__}; expected a Program, see trace"
            raise EngineError(msg)
        batch, input_shape = batch_size(batch), frame_shape(input_shape)
        given, program = program, by_frame(program)
        refuse_other_numbers(
            given, program, torch.empty(1, *input_shape, dtype=torch.float32, device="cpu")
        )
        lowered = lower(
            program,
            input_shape=input_shape,
            thresholds=layer_thresholds(program, threshold),
            group_blocks=GROUP_BLOCKS[precision],
        )
        alone = island_without_batches(lowered) if batch > 1 else None
        if alone is not None:
            batch = 1
        connect(lowered)
        parts: list[NativePart | Island | Between] = []
        for item in lowered.sequence:
            if not isinstance(item, Part):
                parts.append(item)
                continue
            if adaptive:
                set_break_evens(item.steps, precision)
            parts.append(
                build_part(
                    native,
                    item,
                    isa=isa,
                    precision=precision,
                    batch=batch,
                    paper=policy == "paper",
                    packed=packed,
                )
            )
        macs, elements = _sizes(program, lowered, input_shape)
        self._shared = Shared(
            program=program,
            lowered=lowered,
            parts=tuple(parts),
            macs=macs,
            elements=elements,
            isa=isa,
            precision=precision,
            batch=batch,
            alone=alone,
            loses=policy == "paper",
        )
        self._start()

    def _start(self) -> None:
        native = native_module()
        try:
            self._lanes: list[Any] = [
                native.Lane(part.network) if isinstance(part, NativePart) else None
                for part in self._shared.parts
            ]
        except MemoryError as error:
            msg = "the network's state does not fit into memory; expected fewer networks or workers"
            if self._shared.batch > 1:
                msg += f", or a smaller batch than {self._shared.batch} frames"
            raise EngineError(msg) from error
        self._fresh = True
        self._passes = Passes()
        self._totals = {op.name: _Totals() for op in self._shared.program.linear_ops}
        self._others: list[NativeNetwork] = []
        self._tracks = False
        self._scale = 1.0
        self._repeats: Repeats[Tensor] = Repeats(_cat, loses=self._shared.loses)

    def fork(self) -> NativeNetwork:
        """Another lane: a state of its own, the same packed weights."""
        other = object.__new__(NativeNetwork)
        other._shared = self._shared
        other._start()
        return other

    @property
    def program(self) -> Program:
        """The network."""
        return self._shared.program

    @property
    def isa(self) -> str:
        """The instruction set of its kernels, as they call themselves."""
        for lane in self._lanes:
            if lane is not None:
                return str(lane.isa)
        return self._shared.isa

    @property
    def batch(self) -> int:
        """How many frames pass a layer together at most."""
        return self._shared.batch

    @property
    def alone(self) -> str | None:
        """The island for which frames pass all layers one by one, None where they need not."""
        return self._shared.alone

    @property
    def packed(self) -> dict[str, Packed]:
        """The weights in the kernels' order, for networks of other processes."""
        return {
            name: packed
            for part in self._shared.parts
            if isinstance(part, NativePart)
            for name, packed in part.packed.items()
        }

    @property
    def sequence(self) -> Sequence[Part | Island | Between]:
        """What runs, in order: native parts with their steps, and what is between them."""
        return self._shared.lowered.sequence

    @property
    def islands(self) -> tuple[tuple[str, str], ...]:
        """Operations that run as plain PyTorch, and why."""
        return tuple((island.op.name, island.reason) for island in self._shared.lowered.islands)

    def shared_snapshots(self) -> list[list[str]]:
        """Names of the linear operations, those together that have one snapshot of their input.

        Not all that read one value do: a layer with other lists, or beyond an operation without
        a kernel, decides by itself when to run dense, and then holds back nothing.
        """
        groups: dict[object, list[str]] = {}
        for name, delta in self._shared.lowered.layers.items():
            groups.setdefault(name if delta is None else id(delta), []).append(name)
        return list(groups.values())

    def compiled(self) -> CompiledPlan | None:
        """The network as plain data that runs without PyTorch; None if it has islands."""
        return compiled_plan(self._shared)

    def reset(self) -> None:
        """Forgets the past: the next frame is a key frame. The accounting goes on."""
        for lane in self._lanes:
            if lane is not None:
                lane.reset()
        for other in self._others:
            other.reset()
        self._fresh = True
        self._passes.reset()
        self._repeats.forget()

    def key_frame(self) -> None:
        """The next frame is a key frame; which layers run dense is not forgotten."""
        for lane in self._lanes:
            if lane is not None:
                lane.key_frame()
        for other in self._others:
            other.key_frame()
        self._fresh = True
        self._passes.forget_frame()
        self._repeats.forget()

    def track(self) -> None:
        """Has what is truncated counted from here on; the next frame is a key frame."""
        self._tracks = True
        for lane in self._lanes:
            if lane is not None:
                lane.track(True)
        for other in self._others:
            other.track()
        self._fresh = True
        self._passes.reset()
        self._repeats.forget()

    def scale_thresholds(self, factor: float) -> None:
        """All thresholds times a factor, from the next frame on.

        Raises:
            ConfigError: the factor is negative or not a finite number.
        """
        self._scale = factor_of_thresholds(factor)
        for lane in self._lanes:
            if lane is not None:
                lane.scale_thresholds(self._scale)
        for other in self._others:
            other.scale_thresholds(self._scale)
        self._repeats.scaled(self._scale)

    def state_bytes(self) -> int:
        """Memory that this lane's state takes, in bytes."""
        return sum(lane.bytes() for lane in self._lanes if lane is not None)

    def frames_by_rows(self) -> int:
        """Frames whose rows layers have handed on while in the cache, over all runs of such layers.

        Layers with one reader each do so where all of their inputs change, see csrc/chain.cpp.
        """
        return sum(lane.frames_by_rows() for lane in self._lanes if lane is not None)

    def profile(self) -> dict[str, float]:
        """Seconds spent in each step so far, by the name of the operation it ends with."""
        seconds: dict[str, float] = {}
        for lane in self._lanes:
            for name, time in [] if lane is None else lane.profile():
                seconds[name] = seconds.get(name, 0.0) + time
        return seconds

    def split_times(self, on: bool = True) -> None:
        """Whether the time of a step is told apart by what it goes to; takes some time itself."""
        for lane in self._lanes:
            if lane is not None:
                lane.split_times(on)

    def profile_split(self) -> dict[str, dict[str, float]]:
        """Seconds in each step while :meth:`split_times` was on, by name and by what they went to.

        Returns:
            For each step of :meth:`profile` its ``own`` work (a layer's sums, a pooling),
            ``finish`` (the residual sum and activation that are fused to it, and the pooling of a
            first layer), and ``lists``: comparing what it makes, and what it reads, with the frame
            before, truncating, and listing what changed.
        """
        split: dict[str, dict[str, float]] = {}
        for lane in self._lanes:
            for name, own, finish, lists in [] if lane is None else lane.profile_split():
                sums = split.setdefault(name, {"own": 0.0, "finish": 0.0, "lists": 0.0})
                for share, seconds in (("own", own), ("finish", finish), ("lists", lists)):
                    sums[share] += seconds
        return split

    def step(self, frame: Tensor) -> Any:
        """The network's output for the next frame.

        Args:
            frame: (C, H, W), or (N, C, H, W) for N independent lanes that advance together.

        Returns:
            What the network returns for that frame: a tensor without, respectively with, the
            lane dimension, or a tuple of them when the Program has several outputs.

        Raises:
            EngineError: the frame is no such tensor, see :meth:`run`, or there are no lanes.
        """
        frame = tensor_of(frame)
        if frame.dim() != 4 or len(frame) == 0:
            outputs, _ = self.run(frame if frame.dim() == 4 else frame[None])
            outputs = tuple(output[0] for output in outputs)
        else:
            while len(self._others) < len(frame) - 1:
                other = self.fork()
                other.scale_thresholds(self._scale)
                self._others.append(other)
            lanes = [self, *self._others[: len(frame) - 1]]
            each = [lane.run(one[None])[0] for lane, one in zip(lanes, frame, strict=True)]
            outputs = tuple(torch.cat(values) for values in zip(*each, strict=True))
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, frames: Tensor) -> tuple[tuple[Tensor, ...], FrameDensities]:
        """The outputs for T consecutive frames of one lane.

        Args:
            frames: (T, C, H, W), real numbers of any type on the CPU; computed with as float32.

        Returns:
            One (T, ...) tensor for each output of the Program, and what the layers saw. Frames
            with infinities or NaN are computed densely, each by itself, as PyTorch would. A frame
            that equals the one before has its outputs, and cost nothing.

        Raises:
            EngineError: the frames are no such tensor, have another shape than the network was made
                for, or there are none. Whatever else is raised makes it forget the past.
        """
        wanted = self._shared.lowered.frames
        array = array_of(frames, (wanted.channels, wanted.height, wanted.width))
        try:
            outputs, seen, repeats = self._repeats.run(array, self._compute)
        except BaseException:  # some layers are a frame further than others
            self.reset()
            raise
        self._count_repeats(seen, repeats)
        return outputs, FrameDensities(
            density=torch.from_numpy(seen.density),
            density_delta=torch.from_numpy(seen.density_delta),
            key_frame=torch.from_numpy(seen.key_frame),
            work=torch.from_numpy(seen.work),
            truncated=None if seen.truncated is None else torch.from_numpy(seen.truncated),
        )

    def _compute(self, frames: NDArray[np.float32]) -> tuple[tuple[Tensor, ...], Seen]:
        outputs: list[tuple[Tensor, ...]] = []
        seen: list[Seen] = []
        batch = self._shared.batch
        for begin in range(0, len(frames), batch):
            some = frames[begin : begin + batch]
            results = self._batch(some)
            if results is not None:
                outputs += [result[0] for result in results]
                seen += [result[1] for result in results]
                continue
            # Something is not finite. A NaN must not stay in an accumulator: the frames are
            # computed one by one from nothing, and so is the one that follows.
            for frame in some:
                self.reset()
                alone = self._attempt(frame[None]) or self._ordinary(frame[None])
                outputs.append(alone[0])
                seen.append(alone[1])
            self.reset()
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True)), joined(seen)

    def stats(self) -> tuple[LayerCost, ...]:
        """Cost of each linear layer, averaged over all frames since construction.

        ``density_delta`` is over all frames but those computed from nothing, at the beginning and
        where a key frame was asked for (NaN if there were no others). That of an island, which is
        always dense and where nobody counts, is 1 in each of them, and 0 in those that repeat the
        one before.
        """
        names = self._shared.program.linear_names()
        maps = {op.name: op.linear_map for op in self._shared.program.linear_ops}
        lanes = [self, *self._others]
        totals = {
            name: _Totals(
                density=sum(lane._totals[name].density for lane in lanes),
                density_delta=sum(lane._totals[name].density_delta for lane in lanes),
                frames=sum(lane._totals[name].frames for lane in lanes),
                delta_frames=sum(lane._totals[name].delta_frames for lane in lanes),
            )
            for name in self._totals
        }
        return tuple(
            LayerCost(
                name=names[name],
                macs=self._shared.macs[name],
                input_elements=self._shared.elements[name][0],
                output_elements=self._shared.elements[name][1],
                density=total.density / total.frames if total.frames else float("nan"),
                density_delta=(
                    total.density_delta / total.delta_frames if total.delta_frames else float("nan")
                ),
                channels=Channels(*maps[name].channels()),
            )
            for name, total in totals.items()
        )

    def _ordinary(self, frame: NDArray[np.float32]) -> tuple[tuple[Tensor, ...], Seen]:
        """A frame with infinities or NaN, as PyTorch computes it."""
        network = RecurrentNetwork(self.program, threshold=0)
        if self._tracks:
            network.track()
        outputs, densities = network.run(torch.from_numpy(frame))
        for position, total in enumerate(self._totals.values()):
            total.frames += 1
            total.density += float(densities.density[0, position])
        return outputs, seen_of(densities)

    def _count_repeats(self, seen: Seen, repeats: NDArray[np.bool_]) -> None:
        """Frames that were not computed are frames as well, in which nothing has changed."""
        count = int(repeats.sum())
        layers = self._shared.lowered.layers
        for position, name in enumerate(layers if count else ()):
            total = self._totals[name]
            total.frames += count
            total.density += float(seen.density[repeats, position].sum())
            total.delta_frames += count

    def _batch(self, frames: NDArray[np.float32]) -> list[tuple[tuple[Tensor, ...], Seen]] | None:
        """Runs a batch; None when something was not finite."""
        results = []
        before = {name: replace(total) for name, total in self._totals.items()}
        for part in self._passes.divide(frames):
            result = self._attempt(frames[part])
            if result is None:
                self._totals = before
                return None
            results.append(result)
        return results

    def _attempt(self, frames: NDArray[np.float32]) -> tuple[tuple[Tensor, ...], Seen] | None:
        """Runs at most a batch; None when something was not finite."""
        shared = self._shared
        lowered = shared.lowered
        arrays: dict[PlanTensor, NDArray[np.float32]] = {lowered.frames: frames}
        opaque: dict[str, Any] = {}
        counts: dict[int, NDArray[np.int64]] = {}
        truncated: dict[int, NDArray[np.float64]] = {}
        broken = False
        for part, lane in zip(shared.parts, self._lanes, strict=True):
            if isinstance(part, Island):
                self._run_island(part, arrays, opaque, len(frames))
                continue
            if isinstance(part, Rearrangement):
                arrays[part.out] = arrays[part.source].transpose(part.order)  # a view
                continue
            if isinstance(part, Assembly):
                size = (part.out.channels, part.out.height, part.out.width)
                arrays[part.out] = assembled(
                    [arrays[tensor] for tensor in part.sources], part.index, size
                )
                continue
            finite = lane.run([arrays[tensor] for tensor in part.inputs])
            broken = broken or not finite
            for number, tensor in enumerate(part.exports):
                arrays[tensor] = lane.output(number)
            seen = np.asarray(lane.counts()).reshape(len(part.deltas), len(frames), 3)
            lost = np.asarray(lane.truncated()).reshape(len(part.deltas), len(frames))
            for delta, values, sums in zip(part.deltas, seen, lost, strict=True):
                counts[id(delta)], truncated[id(delta)] = values, sums
        if broken:
            self.reset()
            return None
        outputs = tuple(
            self._output(value, arrays, opaque, len(frames)) for value in lowered.outputs
        )
        seen_by_all = self._count(counts, truncated, len(frames))
        self._fresh = False
        return outputs, seen_by_all

    def _output(
        self,
        value: Any,
        arrays: Mapping[PlanTensor, NDArray[np.float32]],
        opaque: Mapping[str, Any],
        frames: int,
    ) -> Tensor:
        if isinstance(value, Opaque):
            result: Tensor = opaque[value.name]
            return result
        if isinstance(value, Known):
            constant: Tensor = value.value
            return constant.expand(frames, *constant.shape[1:])
        return self._torch(value, arrays, frames)

    def _run_island(
        self,
        island: Island,
        arrays: dict[PlanTensor, NDArray[np.float32]],
        opaque: dict[str, Any],
        frames: int,
    ) -> None:
        def value(item: Any) -> Any:
            if isinstance(item, Opaque):
                return opaque[item.name]
            if isinstance(item, Known):
                return item.value
            if isinstance(item, Tensor) and item.dtype == torch.int64:
                return self._torch(item, arrays, frames)
            return item

        with torch.inference_mode():
            args = mapped(island.args, value)
            kwargs = mapped(island.kwargs, value)
            result = island.op.call(*args, **kwargs)
        if island.out is None:
            opaque[island.op.name] = result
            return
        tensor = island.out
        shape = (frames, tensor.channels, tensor.height, tensor.width)
        arrays[tensor] = np.ascontiguousarray(result.reshape(shape).numpy())

    def _torch(
        self, places: Tensor, arrays: Mapping[PlanTensor, NDArray[np.float32]], frames: int
    ) -> Tensor:
        """A value of all frames, from the places of one frame."""
        known = self._shared.lowered.places
        # Frames are the first dimension wherever a network is given several at once.
        shape = tuple(places.shape) if frames == 1 else (frames, *places.shape[1:])
        whole = known.in_order(places)
        if whole is not None:
            return torch.from_numpy(arrays[whole]).reshape(shape)
        sources = known.sources(places)
        flat = torch.cat(
            [torch.from_numpy(arrays[tensor]).reshape(frames, -1) for tensor in sources], dim=1
        )
        return flat[:, known.index(places, sources).flatten()].reshape(shape)

    def _count(
        self,
        counts: Mapping[int, NDArray[np.int64]],
        truncated: Mapping[int, NDArray[np.float64]],
        frames: int,
    ) -> Seen:
        layers = self._shared.lowered.layers
        seen = seen_by(
            self._shared.counted_layers(),
            [None if delta is None else counts[id(delta)] for delta in layers.values()],
            frames=frames,
            fresh=self._fresh,
            truncated=[None if delta is None else truncated[id(delta)] for delta in layers.values()]
            if self._tracks
            else None,
        )
        later = np.arange(frames) >= (1 if self._fresh else 0)
        for position, name in enumerate(layers):
            total = self._totals[name]
            total.frames += frames
            total.density += float(seen.density[:, position].sum())
            total.density_delta += float(seen.density_delta[later, position].sum())
            total.delta_frames += int(later.sum())
        return seen


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(tuple(tensors))


def _sizes(
    program: Program, lowered: Lowered, input_shape: tuple[int, int, int]
) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """MACs, and elements of input and output, of each linear layer for one frame."""
    macs: dict[str, int] = {}
    elements: dict[str, tuple[int, int]] = {}
    shapes = {program.input: (1, *input_shape), **lowered.shapes}
    for op in program.linear_ops:
        outputs = int(np.prod(shapes[op.name]))
        elements[op.name] = (int(np.prod(shapes[op.inputs[0]])), outputs)
        macs[op.name] = outputs * op.linear_map.macs_per_output()
    return macs, elements
