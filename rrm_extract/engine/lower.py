"""From a Program to the native engine's steps; what has none stays an island of plain PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rrm_extract.engine.codes import codebook_of
from rrm_extract.engine.forms import (
    as_convolution,
    fits_bits,
    form_of,
    tiles_of,
    window_of,
)
from rrm_extract.engine.parts import (
    Assembly,
    Between,
    Island,
    Known,
    Lowered,
    Opaque,
    Part,
    Rearrangement,
    leaves,
    unwrapped,
)
from rrm_extract.engine.places import Places, aligned_planes
from rrm_extract.engine.plan import (
    ConvStep,
    DeltaInput,
    GatherStep,
    GlobalAverageStep,
    PlanTensor,
    PointwiseStep,
    PoolStep,
    Step,
)
from rrm_extract.engine.pointwise import activation_of
from rrm_extract.engine.pooling import pool_of
from rrm_extract.engine.refusal import NoStepError, name_of
from rrm_extract.errors import EngineError
from rrm_extract.graph import ChannelScale, Convolution, FullyConnected, LinearMap, Op, Program
from rrm_extract.graph.program import execute, substitute
from rrm_extract.graph.trace import MethodCall
from rrm_extract.rrm import FrameByFrame

__all__ = ["lower", "results_of"]

_MOVES = (getattr, torch.unsqueeze, torch.channel_shuffle, torch.stack, torch.narrow, torch.select)
_FACTS = (MethodCall("dim"), MethodCall("numel"))
"""Methods whose result is the same for all frames, as that of ``size`` is."""
_ADDITIONS = (operator.add, torch.add)
_PRODUCTS = (operator.mul, torch.mul)


def lower(
    program: Program,
    *,
    input_shape: tuple[int, int, int],
    thresholds: Mapping[str, float],
    group_blocks: int,
) -> Lowered:
    """Finds a native step for every operation that has one.

    Args:
        program: the network, batch normalisation folded.
        input_shape: (C, H, W) of a frame.
        thresholds: of each linear operation, by its name.
        group_blocks: blocks of channels that a list keeps together.

    Raises:
        EngineError: the network does nothing, cannot run on such a frame, or an output is no tensor
            with a row for each frame.
    """
    if not program.ops:
        msg = "the network has no operations, so the native engine has nothing to do; use torch"
        raise EngineError(msg)
    lowering = _Lowering(program, input_shape, thresholds, group_blocks)
    return lowering.run()


class _Lowering:
    def __init__(
        self,
        program: Program,
        input_shape: tuple[int, int, int],
        thresholds: Mapping[str, float],
        group_blocks: int,
    ) -> None:
        self.program = program
        self.thresholds = thresholds
        self.group_blocks = group_blocks
        self.places = Places()
        self.frames = PlanTensor(*input_shape, name=program.input)
        self.values: dict[str, Any] = {program.input: self.places.of(self.frames)}
        self.sequence: list[Part | Island | Between] = []
        self.layers: dict[str, DeltaInput | None] = {}
        self.deltas: dict[tuple[Any, ...], DeltaInput] = {}
        self.gathered: dict[tuple[Any, ...], PlanTensor] = {}
        self.assembled: list[tuple[Tensor, PlanTensor]] = []
        self.made: dict[PlanTensor, PlanTensor] = {}
        self.signs: set[PlanTensor] = set()
        self.results = results_of(program, input_shape)
        self.op = program.ops[0]

    def run(self) -> Lowered:
        for op in self.program.ops:
            self.op = op
            args = substitute(op.args, self.values)
            kwargs = substitute(dict(op.kwargs), self.values)
            try:
                self.values[op.name] = self._lower(op, args, kwargs)
            except NoStepError as why:
                self.values[op.name] = self._island(op, args, kwargs, str(why))
        outputs = [self._output(name) for name in self.program.outputs]
        return Lowered(
            sequence=self.sequence,
            frames=self.frames,
            outputs=outputs,
            layers=self.layers,
            places=self.places,
            shapes={
                name: tuple(value.shape)
                for name, value in self.results.items()
                if isinstance(value, Tensor)
            },
        )

    def _output(self, name: str) -> Any:
        """The value of an output, if a frame has one row of it.

        Raises:
            EngineError: it has not.
        """
        result = self.results[name]
        if isinstance(result, Tensor) and result.dim() > 0 and result.shape[0] == 1:
            return self.values[name]
        what = type(result).__name__
        if isinstance(result, Tensor):
            what = f"a tensor of shape {tuple(result.shape)}"
        msg = (
            f"output {name!r} is {what} for one frame; the native engine expects a tensor of shape "
            "(1, ...), a row for each frame: choose another layer"
        )
        raise EngineError(msg)

    # What becomes of one operation.

    def _lower(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = leaves((args, kwargs))
        if any(isinstance(leaf, Opaque) for leaf in given):
            raise NoStepError("reads the result of another island")
        if op.kind == "constant":
            return Known(op.call())
        has_known = any(isinstance(leaf, Known) for leaf in given)
        has_places = any(isinstance(leaf, Tensor) for leaf in given)
        if has_known and not has_places:  # the same for all frames
            return _known(op.call(*unwrapped(args), **unwrapped(kwargs)))
        if not has_places:
            return _known(op.call(*args, **kwargs))
        moves = op.kind in ("reshape", "identity", "concat") or op.call in _MOVES
        if not has_known and (moves or op.call in _FACTS):
            return self._moved(op, args, kwargs)
        if has_known and op.kind not in ("add", "multiply"):
            raise NoStepError(f"no kernel for {name_of(op)} with a constant")
        result = self.results[op.name]
        if not isinstance(result, Tensor) and op.kind in ("add", "multiply"):
            # Tuples that are joined, or repeated.
            if has_known:
                raise NoStepError(f"no kernel for {name_of(op)} with a constant")
            return self._moved(op, args, kwargs)
        if isinstance(result, Tensor) and result.dtype != torch.float32:
            raise NoStepError(f"its result is {result.dtype}")
        if op.kind in ("conv", "linear"):
            return self._linear(op, args[0])
        if op.kind == "activation" or activation_of(op.call, args[1:], kwargs) is not None:
            return self._activation(op, args, kwargs)
        if op.kind == "pool":
            return self._pool(op, args, kwargs)
        if isinstance(op.call, FrameByFrame):
            raise NoStepError("batch normalisation without running statistics")
        if op.kind == "norm" and isinstance(op.call, (nn.BatchNorm1d, nn.BatchNorm2d)):
            return self._batch_norm(op.call, args[0])
        if isinstance(op.call, ChannelScale):
            return self._channel_scale(args[0], op.call)
        if op.call in _ADDITIONS or op.call in _PRODUCTS or op.kind in ("add", "multiply"):
            return self._arithmetic(op, args, kwargs)
        raise NoStepError(f"no kernel for {name_of(op)}")

    def _moved(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The places after an operation that moves them, or what it tells of all frames alike."""
        result = self.results[op.name]
        if not any(isinstance(leaf, Tensor) for leaf in leaves(result)):
            return result  # a shape or a type, which is not that of the places
        try:
            value = op.call(*args, **kwargs)
        except RuntimeError as error:
            raise NoStepError(f"no kernel for {name_of(op)}") from error
        if op.kind == "identity" and not torch.equal(value, args[0]):
            raise NoStepError(f"no kernel for {name_of(op)} that draws at random")
        return value

    def _linear(self, op: Op, x: Tensor) -> Tensor:
        linear = op.linear_map
        if linear.weight.dtype != torch.float32:
            raise NoStepError(f"its weights are {linear.weight.dtype}")
        binary = self._is_binary(linear, x)
        if isinstance(linear, Convolution):
            if linear.weight.dim() != 4:
                raise NoStepError(f"a convolution over {linear.weight.dim() - 2} dimensions")
            if linear.padding_mode != "zeros":
                raise NoStepError(f"padding mode {linear.padding_mode!r}")
            return self.places.of(self._convolution(op, linear, self._image(x), binary))
        if not isinstance(linear, FullyConnected):
            raise NoStepError(f"no kernel for {type(linear).__name__}")
        if x.dim() == 2 and x.shape[0] == 1:
            source = self.places.in_order(x) or self._image(x[:, :, None, None])
            kernel = (source.height, source.width)
            out = self._convolution(op, as_convolution(linear, kernel), source, binary)
            return self.places.of(out).flatten(1)
        if x.dim() == 4:  # over the last dimension: a convolution of one pixel
            source = self._image(x.permute(0, 3, 1, 2))
            out = self._convolution(op, as_convolution(linear, (1, 1)), source, binary)
            return self.places.of(out).permute(0, 2, 3, 1)
        if x.dim() == 2:
            raise NoStepError("a fully-connected layer over several rows of a frame")
        raise NoStepError(f"a fully-connected layer over {x.dim()} dimensions")

    def _is_binary(self, linear: LinearMap, x: Tensor) -> bool:
        """Whether inputs and weights are signs, so that every sum is a whole number."""
        made_of_signs = all(source in self.signs for source in self.places.sources(x))
        return made_of_signs and bool((linear.weight.abs() == 1).all())

    def _convolution(
        self, op: Op, linear: Convolution, source: PlanTensor, binary: bool
    ) -> PlanTensor:
        source = self._made(source)
        window = window_of(linear, source)
        threshold = self.thresholds[op.name]
        # Bits hold whatever flips: there is nothing to truncate.
        packed = binary and threshold == 0 and fits_bits(linear)
        codebook = None if binary else codebook_of(linear, window, source)
        if codebook is not None:
            form = "codes"
        else:
            form = "xnor" if packed else form_of(linear, window, source)
        # Tiles would round what is exact otherwise.
        tiles = None if binary else tiles_of(form, window, source)
        key = {"columns": "columns", "depthwise": "select", "xnor": "bits"}.get(form, "list")
        groups = 1 if linear.groups > 1 else self.group_blocks
        # Each part has its own lists: an input that two of them read is found twice.
        identity = (id(self._part()), id(source), key, threshold, groups)
        delta = self.deltas.get(identity)
        if delta is None:
            delta = self.deltas[identity] = DeltaInput(
                source=source,
                shape=(source.channels, source.height, source.width),
                form=key,
                threshold=threshold,
                group_blocks=groups,
            )
        delta.halo = max(delta.halo, window.most_padding, 0 if tiles is None else tiles.halo)
        self.layers[op.name] = delta
        height, width = window.output(source.height, source.width)
        out = PlanTensor(linear.weight.shape[0], height, width, name=op.name)
        self._add(
            ConvStep(
                name=op.name,
                out=out,
                delta=delta,
                form=form,
                linear=linear,
                window=window,
                tile=0 if tiles is None else tiles.outputs,
                codebook=codebook,
            )
        )
        return out

    def _activation(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        activation = activation_of(op.call, args[1:], kwargs)
        if activation is None:
            raise NoStepError(f"no kernel for {name_of(op)}")
        result = self._elementwise(args[0], activation=activation)
        if activation.kind == "sign":
            self.signs.update(self.places.sources(result))
        return result

    def _elementwise(self, x: Tensor, **change: Any) -> Tensor:
        """The same function of every element, in whatever order they lie."""
        source = self.places.whole(x)
        rearranged = source is None
        if source is None:
            source = self._image(x)
        out = PlanTensor(source.channels, source.height, source.width, name=self.op.name)
        self._add(PointwiseStep(name=self.op.name, out=out, inputs=[source], **change))
        if rearranged:
            return self.places.of(out)
        return x - self.places.of(source).flatten()[0] + self.places.of(out).flatten()[0]

    def _batch_norm(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
        if norm.running_mean is None or norm.running_var is None:  # see FrameByFrame
            raise NoStepError("batch normalisation without running statistics")
        scale = 1 / torch.sqrt(norm.running_var.double() + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.detach().double()
        shift = -norm.running_mean.double() * scale
        if norm.bias is not None:
            shift = shift + norm.bias.detach().double()
        return self._by_channel(x, scale, shift)

    def _channel_scale(self, x: Tensor, call: ChannelScale) -> Tensor:
        scale = call.scale
        shift = scale.new_zeros(1) if call.shift is None else call.shift
        spatial = scale.dim() - 1
        if x.dim() == spatial + 2:
            return self._by_channel(x, scale, shift)
        if spatial == 0 and x.dim() == 4:  # of a fully-connected layer over the last dimension
            return self._by_channel(x.permute(0, 3, 1, 2), scale, shift).permute(0, 2, 3, 1)
        raise NoStepError(f"a scale by channel over {x.dim()} dimensions")

    def _by_channel(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if x.dim() == 2:  # numbers without a place are channels of one pixel
            return self._by_channel(x[:, :, None, None], scale, shift).flatten(1)
        if x.dim() != 4:
            raise NoStepError(f"a scale by channel over {x.dim()} dimensions")
        source = self._image(x)
        out = PlanTensor(source.channels, source.height, source.width, name=self.op.name)
        step = PointwiseStep(
            name=self.op.name,
            out=out,
            inputs=[source],
            scale=_numbers(scale, source.channels),
            shift=_numbers(shift, source.channels),
        )
        self._add(step)
        return self.places.of(out)

    def _pool(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        x: Tensor = args[0]
        if x.dim() != 4:
            raise NoStepError("its input is no map of channels")
        described = pool_of(op, args[1:], kwargs, (x.shape[2], x.shape[3]))
        if described is None:
            raise NoStepError(f"no kernel for {name_of(op)} with these arguments")
        if described == "same":
            return x
        source = self._image(x)
        shape = tuple(self.results[op.name].shape)
        out = PlanTensor(source.channels, 1, 1, name=op.name)
        if isinstance(described, str):  # the whole map
            self._add(GlobalAverageStep(name=op.name, out=out, source=source))
            return self.places.of(out).reshape(shape)
        window, maximum, count_padding = described
        out.height, out.width = shape[2:]
        step = PoolStep(
            name=op.name,
            out=out,
            source=source,
            window=window,
            maximum=maximum,
            count_padding=count_padding,
        )
        self._add(step)
        return self.places.of(out)

    def _arithmetic(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        multiply = op.kind == "multiply" or op.call in _PRODUCTS
        if kwargs or len(args) != 2:
            raise NoStepError(f"{name_of(op)} with more than two operands")
        a, b = args
        if not isinstance(a, Tensor):
            a, b = b, a
        if not isinstance(b, Tensor):
            if self.results[op.name].shape != a.shape:
                raise NoStepError("a constant of another shape")
            number = torch.as_tensor(unwrapped(b), dtype=torch.float64, device="cpu")
            one, zero = number.new_ones(1), number.new_zeros(1)
            if a.dim() == 4:
                if number.numel() not in (1, a.shape[1]) or number.numel() != max(
                    1, *number.shape[-3:-2] or (1,)
                ):
                    raise NoStepError("a constant that is no number by channel")
                number = number.flatten()
                return self._by_channel(
                    a, number if multiply else one, zero if multiply else number
                )
            if number.numel() != 1:
                raise NoStepError("a product with a constant of this shape")
            source = self.places.whole(a)
            if source is None:
                raise NoStepError("a rearranged operand")
            number = number.flatten()
            scale = _numbers(number if multiply else one, source.channels)
            shift = _numbers(zero if multiply else number, source.channels)
            return self._elementwise(a, scale=scale, shift=shift)
        return self._of_two(a, b, multiply=multiply)

    def _of_two(self, a: Tensor, b: Tensor, *, multiply: bool) -> Tensor:
        if a.dim() == 4 and b.dim() == 4:
            if a.shape[2:] == (1, 1):  # the map first, the factor of one pixel second
                a, b = b, a
            first, second = self._image(a), self._image(b)
            fits = second.channels == first.channels and (
                (second.height, second.width) in ((1, 1), (first.height, first.width))
            )
            if not fits:
                raise NoStepError("operands of these shapes")
            out = PlanTensor(first.channels, first.height, first.width, name=self.op.name)
            inputs = [first, second]
            self._add(PointwiseStep(name=self.op.name, out=out, inputs=inputs, multiply=multiply))
            return self.places.of(out)
        one, two = self.places.whole(a), self.places.whole(b)
        if one is None or two is None or a.shape != b.shape:
            raise NoStepError("operands of these shapes")
        of_one, of_two = self.places.of(one).flatten()[0], self.places.of(two).flatten()[0]
        same = (one.channels, one.height, one.width) == (two.channels, two.height, two.width)
        if not same or not torch.equal(a - of_one, b - of_two):
            raise NoStepError("operands in different orders")
        out = PlanTensor(one.channels, one.height, one.width, name=self.op.name)
        self._add(PointwiseStep(name=self.op.name, out=out, inputs=[one, two], multiply=multiply))
        return a - of_one + self.places.of(out).flatten()[0]

    # Values as tensors of the plan.

    def _image(self, x: Tensor) -> PlanTensor:
        """The (1, C, H, W) value as one tensor: itself, a view of blocks, or gathered channels."""
        channels = self.places.channels(x)
        if channels is None:
            return self._rearranged(x)
        tensor = channels[0][0]
        if channels == [(tensor, channel) for channel in range(tensor.channels)]:
            return tensor
        key = tuple((id(source), channel) for source, channel in channels)
        found = self.gathered.get(key)
        if found is None:
            found = PlanTensor(
                len(channels), tensor.height, tensor.width, name=f"{self.op.name}.input"
            )
            planes = aligned_planes(channels)
            if planes is not None:
                found.planes = tuple(planes)
            else:
                self._add(GatherStep(name=found.name, out=found, channels=channels))
            self.gathered[key] = found
        return found

    def _rearranged(self, x: Tensor) -> PlanTensor:
        """A value whose dimensions come in another order enters the network as a tensor anew."""
        found = self.places.permuted(x)
        if found is None:
            return self._assembly(x)
        key = (id(found[0]), found[1])
        tensor = self.gathered.get(key)
        if tensor is None:
            _, channels, height, width = x.shape
            tensor = PlanTensor(channels, height, width, name=f"{self.op.name}.input")
            self.sequence.append(Rearrangement(source=found[0], order=found[1], out=tensor))
            self.gathered[key] = tensor
        return tensor

    def _assembly(self, x: Tensor) -> PlanTensor:
        """A value whose elements come from anywhere enters the network as a tensor anew."""
        if x.dim() != 4 or x.shape[0] != 1 or x.numel() == 0:
            raise NoStepError("its input is no map of channels")
        for places, tensor in self.assembled:
            if torch.equal(places, x):
                return tensor
        sources = self.places.sources(x)
        _, channels, height, width = x.shape
        tensor = PlanTensor(channels, height, width, name=f"{self.op.name}.input")
        index = self.places.index(x, sources).flatten().numpy()
        self.sequence.append(Assembly(sources=sources, index=index, out=tensor))
        self.assembled.append((x, tensor))
        return tensor

    def _made(self, source: PlanTensor) -> PlanTensor:
        """Lists of deltas are written while a tensor is made, so a view has to be made as well."""
        if not source.planes:
            return source
        made = self.made.get(source)
        if made is None:
            size = (source.channels, source.height, source.width)
            made = self.made[source] = PlanTensor(*size, name=f"{self.op.name}.input")
            self._add(PointwiseStep(name=made.name, out=made, inputs=[source]))
        return made

    def _part(self) -> Part:
        """The native part that the next step belongs to."""
        last = self.sequence[-1] if self.sequence else None
        if not isinstance(last, Part):
            last = Part()
            self.sequence.append(last)
        return last

    def _add(self, step: Step) -> None:
        self._part().steps.append(step)

    def _island(self, op: Op, args: Any, kwargs: Any, reason: str) -> Any:
        result = self.results[op.name]
        island = Island(op=op, args=args, kwargs=kwargs, reason=reason)
        self.sequence.append(island)
        if op.kind in ("conv", "linear"):
            self.layers[op.name] = None
        is_image = _is_tensor(result) and result.dim() in (2, 4) and result.shape[0] == 1
        if not is_image or result.dtype != torch.float32:
            return Opaque(op.name)
        channels, height, width = (*result.shape[1:], 1, 1)[:3]
        island.out = PlanTensor(channels, height, width, name=op.name)
        return self.places.of(island.out).reshape(result.shape)


def results_of(program: Program, input_shape: tuple[int, int, int]) -> dict[str, Any]:
    """What each operation makes of one frame of zeros.

    Raises:
        EngineError: one cannot be computed; which, and why.
    """
    results: dict[str, Any] = {}

    def compute(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            value = op.call(*args, **kwargs)
        except Exception as error:  # whatever PyTorch, or the network, says
            raise EngineError(_cannot_run(op, input_shape, error)) from error
        # Only the shape is of use: nothing else is kept alive.
        results[op.name] = value.new_empty(()).expand(value.shape) if _is_tensor(value) else value
        return value

    frame = torch.zeros(1, *input_shape, dtype=torch.float32, device="cpu")
    results[program.input] = frame.new_empty(()).expand(frame.shape)
    with torch.inference_mode():
        execute(program, frame, compute)
    return results


def _cannot_run(op: Op, input_shape: tuple[int, int, int], error: Exception) -> str:
    weight = getattr(op.call, "weight", None)
    if isinstance(weight, Tensor) and (weight.dtype, weight.device.type) != (torch.float32, "cpu"):
        return (
            f"the weights of {op.name!r} are {weight.dtype} on {weight.device}; the native engine "
            "expects torch.float32 on cpu: call .float() and .cpu() on the module"
        )
    why = " ".join(str(error).split())[:300]
    return (
        f"{op.name!r} cannot be computed for a frame of input_shape {tuple(input_shape)}: "
        f"{type(error).__name__}: {why}; expected the (C, H, W) that the network takes"
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() > 0


def _numbers(values: Tensor, channels: int) -> np.ndarray:
    padded = np.zeros(-(-channels // 16) * 16, np.float32)
    padded[:channels] = values.detach().float().flatten().expand(channels).numpy()
    return padded


def _known(value: Any) -> Any:
    """What was made of constants: tensors as constants, other values as they are."""
    if isinstance(value, (tuple, list)):
        return type(value)(_known(item) for item in value)
    return Known(value) if isinstance(value, Tensor) else value
