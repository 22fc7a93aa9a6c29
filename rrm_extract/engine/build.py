"""From the plan of a network's native part to the native network, weights packed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.engine.parts import Part
from rrm_extract.engine.plan import (
    BLOCK,
    ConvStep,
    DeltaInput,
    GatherStep,
    GlobalAverageStep,
    PlanTensor,
    PointwiseStep,
    PoolStep,
    Step,
)
from rrm_extract.engine.tape import Call, TapedNetwork

__all__ = ["NativePart", "Packed", "build_part"]

IN_PLACE_BYTES = 640 * 1024
"""Weights of a stage up to this size stay in the second-level cache from frame to frame."""

CACHE_LINE = 64

STAGE_OUTPUTS = 128
"""Outputs that a convolution computes together; kStageBlocks blocks."""


@dataclass(frozen=True, eq=False)
class Packed:
    """One layer's weights in the order of its kernel.

    Attributes:
        elements: (N,) int32 bits, or float32 for a depthwise layer; a torch tensor, which can be
            mapped from a file by all workers.
        sets: blocks of outputs: (first, count, first unit, end of units, offset) of each.
    """

    elements: Tensor
    sets: tuple[tuple[int, int, int, int, int], ...] = ()

    def numpy(self) -> NDArray[Any]:
        """The elements as the native module takes them."""
        array: NDArray[Any] = self.elements.numpy()
        if array.ctypes.data % CACHE_LINE:  # vectors that straddle two lines cost twice the loads
            wide = np.empty(array.nbytes + CACHE_LINE, np.uint8)
            begin = -wide.ctypes.data % CACHE_LINE
            aligned = wide[begin : begin + array.nbytes].view(array.dtype)
            aligned[:] = array
            array = aligned
        return array.view(np.uint32) if array.dtype == np.int32 else array


@dataclass(frozen=True, eq=False)
class NativePart:
    """A native network and what its numbers stand for.

    Attributes:
        network: of the native module.
        inputs, exports: the tensors that go in and come out, in order.
        deltas: the inputs of linear layers, in the order of the native counts.
        packed: the weights, so that other processes can share them: by name the elements as
            int32 or float32, and what is needed to find their way in them.
        calls: what made the network; their arrays are those of the network, not copies.
    """

    network: Any
    inputs: tuple[PlanTensor, ...]
    exports: tuple[PlanTensor, ...]
    deltas: tuple[DeltaInput, ...]
    packed: Mapping[str, Packed]
    calls: tuple[Call, ...]


def build_part(
    native: Any,
    part: Part,
    *,
    isa: str,
    precision: str,
    batch: int,
    paper: bool,
    packed: Mapping[str, Packed] | None = None,
) -> NativePart:
    """Makes the native network of one part.

    Args:
        native: the native module.
        part: its steps.
        isa: the instruction set.
        precision: "fp32" or "bf16".
        batch: most frames that one call takes.
        paper: whether the snapshot follows Algorithm 1 of the paper.
        packed: weights that were packed before, for the same plan and precision.
    """
    builder = _Builder(native, part, isa, precision, batch, paper)
    builder.given = {} if packed is None else packed
    return builder.build()


class _Builder:
    def __init__(
        self, native: Any, part: Part, isa: str, precision: str, batch: int, paper: bool
    ) -> None:
        self.native = native
        self.part = part
        self.precision = precision
        self.paper = paper
        self.network = TapedNetwork(native.Network(isa, precision, batch))
        self.ids: dict[PlanTensor, int] = {}
        self.delta_ids: dict[int, int] = {}
        self.deltas: list[DeltaInput] = []
        self.packed: dict[str, Packed] = {}
        self.given: Mapping[str, Packed] = {}

    def build(self) -> NativePart:
        readers: dict[PlanTensor, list[DeltaInput]] = {}
        values: set[PlanTensor] = set(self.part.exports)
        for step in self.part.steps:
            values.update(step.sources())
            if isinstance(step, ConvStep) and step.delta.source is not None:
                known = readers.setdefault(step.delta.source, [])
                if step.delta not in known:
                    known.append(step.delta)
        for number, tensor in enumerate(self.part.inputs):
            self._input(number, tensor, readers.get(tensor, []), tensor in values)
        for step in self.part.steps:
            self._step(step)
        for tensor in self.part.exports:
            self.network.output(self._id(tensor))
        return NativePart(
            network=self.network.network,
            inputs=tuple(self.part.inputs),
            exports=tuple(self.part.exports),
            deltas=tuple(self.deltas),
            packed=self.packed,
            calls=tuple(self.network.calls),
        )

    def _input(self, number: int, tensor: PlanTensor, deltas: list[DeltaInput], read: bool) -> None:
        self.network.input(tensor.channels, tensor.height, tensor.width)
        views = any(tensor in _roots(other) for other in self._views())
        as_tensor = read or views or any(delta.form != "columns" for delta in deltas)
        straight: list[int] = []
        if as_tensor:
            self._id(tensor)
        else:  # its rows go to the first layer as they are
            straight = [self._delta(delta, number) for delta in deltas]
        self.network.read(tensor.name, number, self._id(tensor) if as_tensor else -1, straight)

    def _views(self) -> list[PlanTensor]:
        views = []
        for step in self.part.steps:
            sources = list(step.sources())
            if isinstance(step, ConvStep) and step.delta.source is not None:
                sources.append(step.delta.source)
            views += [tensor for tensor in sources if tensor.planes]
        return views

    def _id(self, tensor: PlanTensor) -> int:
        found = self.ids.get(tensor)
        if found is None:
            size = (tensor.channels, tensor.height, tensor.width)
            if tensor.planes:
                planes = [(self._id(source), block) for source, block in tensor.planes]
                found = self.network.view(*size, planes)
            else:
                found = self.network.tensor(*size)
            self.ids[tensor] = found
        return found

    def _delta(self, delta: DeltaInput, number: int = -1) -> int:
        found = self.delta_ids.get(id(delta))
        if found is None:
            source = -1 if number >= 0 or delta.source is None else self._id(delta.source)
            found = self.network.delta(
                source,
                number,
                delta.form,
                delta.halo,
                delta.group_blocks,
                delta.threshold,
                self.paper,
                delta.break_even,
            )
            self.delta_ids[id(delta)] = found
            self.deltas.append(delta)
        return found

    def _step(self, step: Step) -> None:
        network = self.network
        # The inputs of later layers have to be known before the step that fills them runs.
        out = self._id(step.out)
        if isinstance(step, ConvStep):
            self._convolution(step, out)
        elif isinstance(step, PoolStep):
            network.pool(
                step.name,
                self._id(step.source),
                out,
                step.window.numbers(),
                step.maximum,
                step.count_padding,
            )
        elif isinstance(step, GlobalAverageStep):
            network.global_average(step.name, self._id(step.source), out)
        elif isinstance(step, PointwiseStep):
            network.pointwise(
                step.name,
                [self._id(source) for source in step.inputs],
                out,
                step.multiply,
                [] if step.scale is None else step.scale.tolist(),
                [] if step.shift is None else step.shift.tolist(),
                step.activation.kind,
                step.activation.low,
                step.activation.high,
            )
        elif isinstance(step, GatherStep):
            network.gather(
                step.name, out, [(self._id(tensor), channel) for tensor, channel in step.channels]
            )
        else:
            msg = f"no native operation for a {type(step).__name__}"
            raise TypeError(msg)

    def _convolution(self, step: ConvStep, out: int) -> None:
        network, native, linear = self.network, self.native, step.linear
        delta = self._delta(step.delta)
        residual = -1
        if step.residual is not None:
            residual = self._id(step.residual)
            network.store(residual)
        activation = step.activation
        epilogue = (residual, activation.kind, activation.low, activation.high)
        weight = linear.weight.detach()

        def contiguous() -> NDArray[np.float32]:
            return np.ascontiguousarray(weight.numpy(), np.float32)

        bias = np.zeros(step.out.blocks * BLOCK, np.float32)
        if linear.bias is not None:
            bias[: step.out.channels] = linear.bias.detach().numpy()
        numbers = step.window.numbers()
        if step.form == "depthwise":
            kernel = self._packed(step.name, lambda: (_by_lane(contiguous()), ()))
            network.depthwise(step.name, delta, out, numbers, kernel.numpy(), bias, epilogue)
            return
        if step.form == "xnor":
            bits = self._packed(step.name, lambda: (native.pack_signs(contiguous()), ()))
            rows = self._packed(
                f"{step.name}.rows", lambda: (native.pack_sign_rows(contiguous()), ())
            )
            ones = (np.arange(bias.size) < step.out.channels).astype(np.float32)
            scale = ones if step.scale is None else step.scale
            shift = np.zeros_like(bias) if step.shift is None else step.shift
            network.binary(
                step.name,
                delta,
                out,
                numbers,
                bits.numpy(),
                rows.numpy(),
                scale,
                shift + scale * bias,
                epilogue,
            )
            return
        if step.codebook is not None:
            codebook = step.codebook
            codes = cache(lambda: native.pack_codes(contiguous(), codebook))
            entries = self._packed(f"{step.name}.codes", lambda: (codes()[0], ()))
            starts = self._packed(f"{step.name}.starts", lambda: (codes()[1], ()))
            network.coded(
                step.name, delta, out, entries.numpy(), starts.numpy(), codebook, bias, epilogue
            )
            return
        if step.form == "columns":
            stride = step.window.stride[1]
            packed = self._packed(
                step.name, lambda: (native.pack_columns(contiguous(), stride), ())
            )
            pixel = stride if step.tile else 1
            dense = self._packed(
                f"{step.name}.dense", lambda: (native.pack_columns_dense(contiguous(), pixel), ())
            )
            network.columns(
                step.name,
                delta,
                out,
                numbers,
                packed.numpy(),
                dense.numpy(),
                bias,
                epilogue,
                [] if step.pool is None else step.pool.numbers(),
                step.tile,
            )
            return
        pack = native.pack_window if step.form == "window" else native.pack_taps
        packed = self._packed(
            step.name,
            lambda: pack(contiguous(), linear.groups, self.precision, step.delta.group_blocks),
        )
        elements = packed.numpy()
        stage = elements.nbytes * min(1.0, STAGE_OUTPUTS / step.out.channels)
        in_place = stage <= IN_PLACE_BYTES
        network.convolution(
            step.name,
            delta,
            out,
            numbers,
            step.form,
            elements,
            list(packed.sets),
            bias,
            epilogue,
            in_place,
            step.tile,
        )

    def _packed(self, name: str, pack: Callable[[], tuple[Any, Any]]) -> Packed:
        found = self.given.get(name)
        if found is None:
            array, sets = pack()
            array = np.asarray(array)
            bits = array.view(np.int32) if array.dtype == np.uint32 else array
            found = Packed(torch.from_numpy(bits), tuple(tuple(one) for one in sets))
        self.packed[name] = found
        return found


def _by_lane(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depthwise weights (C, 1, rows, columns) as [block][tap][16]."""
    blocks = -(-len(weight) // BLOCK)
    kernel = np.zeros((blocks * BLOCK, weight[0].size), np.float32)
    kernel[: len(weight)] = weight.reshape(len(weight), -1)
    lanes = kernel.reshape(blocks, BLOCK, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(lanes).reshape(-1)


def _roots(tensor: PlanTensor) -> set[PlanTensor]:
    roots = {tensor}
    for source, _ in tensor.planes:
        roots |= _roots(source)
    return roots
