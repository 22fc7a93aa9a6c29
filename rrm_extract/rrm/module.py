"""Any Program as a recurrent network, in plain PyTorch: the readable engine and the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rrm_extract.errors import ConfigError, EngineError, LayerError
from rrm_extract.graph import Op, Program, execute, sign_readers
from rrm_extract.graph.program import LINEAR_KINDS, ordinary_values
from rrm_extract.rrm.apart import keeps_frames_apart
from rrm_extract.rrm.cost import Channels, LayerCost
from rrm_extract.rrm.frames import by_frame, refuse_other_numbers
from rrm_extract.rrm.given import factor_of_thresholds, real_tensor, threshold_number
from rrm_extract.rrm.truncate import POLICIES, Policy, truncated_deltas

__all__ = ["DeltaObserver", "FrameDensities", "RecurrentNetwork", "layer_thresholds"]

DeltaObserver = Callable[[Op, Tensor, Tensor], None]
"""Is shown a linear layer, its (T, N, ...) deltas, and (T,) bool, which frames it ran densely.

The deltas are not to be written to. Those of a dense frame are the plain input.
"""


@dataclass(frozen=True, kw_only=True)
class FrameDensities:
    """What the linear layers saw in each frame of one call, mean over lanes.

    Attributes:
        density: (T, L) float64, share of non-zeros of each layer's plain input.
        density_delta: (T, L) float64, share of non-zeros of its delta; at a key frame that of
            the plain input.
        key_frame: (T,) bool, the frame was computed densely by every layer.
        work: (T,) float64, share of the dense MACs that belong to non-zero deltas; 1 at a key
            frame.
        truncated: (T, L) float64, sum of squares of the differences that were not propagated,
            over all lanes; None unless the network tracks it. With the policy "bounded" that is
            how far each snapshot is from the input, with "paper" what this frame has lost.
    """

    density: Tensor
    density_delta: Tensor
    key_frame: Tensor
    work: Tensor
    truncated: Tensor | None = None


@dataclass
class _LayerState:
    """What one linear layer keeps between frames, for each lane."""

    snapshot: Tensor | None = None  # (N, ...) the input that was propagated
    accumulator: Tensor | None = None  # (N, ...) W * snapshot + b


_ON_CPU: Any = {"dtype": torch.float64, "device": "cpu"}
"""Of what is counted, whatever torch's default device is."""


@dataclass
class _LayerTotals:
    """Sums over frames, for the accounting."""

    macs: int = 0
    input_elements: int = 0
    output_elements: int = 0
    density: float = 0.0
    density_delta: float = 0.0  # delta frames only
    frames: int = 0
    delta_frames: int = 0


@dataclass
class _Call:
    """What is measured during one call, layer by layer."""

    frames: int
    lanes: int
    density: list[Tensor] = field(default_factory=list)
    density_delta: list[Tensor] = field(default_factory=list)
    dense: list[Tensor] = field(default_factory=list)
    truncated: list[Tensor] = field(default_factory=list)


class RecurrentNetwork:
    """A network that computes only what changed since the frame before (Sec. 3.2).

    Each linear layer keeps its last input and output, and adds the layer's response to the
    truncated difference: ``y_t = y_{t-1} + W * trunc(x_t - s_{t-1})``. All other operations run
    as usual. The first frame after construction or :meth:`reset` is a key frame: the same
    equation from a snapshot of zeros, without truncation.

    The state belongs to the object; several can live side by side and share one Program.

    What is lost in rounding adds up until the next key frame. PyTorch's flags are left as they are:
    on NVIDIA GPUs ``torch.backends.cudnn.allow_tf32 = False`` has convolutions compute in full.

    Args:
        program: the network; its parameters stay where they are.
        threshold: the largest difference that is not propagated, in units of the layer's input;
            a number for all layers, or one for each named layer with "default" for the others.
        policy: "bounded" or "paper", see :func:`rrm_extract.rrm.truncate.truncated_deltas`.

    Raises:
        ConfigError: a threshold is negative or not a number, or the policy is unknown.
        LayerError: a threshold names no convolution or fully-connected layer.
    """

    def __init__(
        self,
        program: Program,
        *,
        threshold: float | Mapping[str, float] = 1e-4,
        policy: Policy = "bounded",
    ) -> None:
        if policy not in POLICIES:
            msg = f"policy {policy!r} is unknown; expected one of {', '.join(POLICIES)}"
            raise ConfigError(msg)
        self._given: Program | None = program  # until a frame has shown what it takes
        self.program = by_frame(program)
        self.policy: Policy = policy
        self.thresholds = layer_thresholds(program, threshold)
        self._totals = {op.name: _LayerTotals() for op in program.linear_ops}
        self._states: dict[str, _LayerState] = {}
        self._tracks = False
        self._scale = 1.0
        self._apart: bool | None = None
        self._observer: DeltaObserver | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets the past: the next frame is a key frame. The accounting goes on."""
        self._states = {op.name: _LayerState() for op in self.program.linear_ops}
        self._lanes: int | None = None

    def key_frame(self) -> None:
        """The next frame is a key frame, as after :meth:`reset`."""
        self.reset()

    def track(self) -> None:
        """Has what is truncated counted from here on; the next frame is a key frame."""
        self._tracks = True
        self.reset()

    def scale_thresholds(self, factor: float) -> None:
        """All thresholds times a factor, from the next frame on.

        Raises:
            ConfigError: the factor is negative or not a finite number.
        """
        self._scale = factor_of_thresholds(factor)

    def observe(self, observer: DeltaObserver) -> None:
        """Has the deltas of every linear layer shown, layer by layer, from here on."""
        self._observer = observer

    def shared_snapshots(self) -> list[list[str]]:
        """Names of the linear operations, those together whose snapshots are always equal."""
        groups: dict[tuple[str, float], list[str]] = {}
        for op in self.program.linear_ops:
            groups.setdefault((op.inputs[0], self.thresholds[op.name]), []).append(op.name)
        return list(groups.values())

    def step(self, frame: Tensor) -> Any:
        """The network's output for the next frame.

        Args:
            frame: (C, H, W), or (N, C, H, W) for N independent lanes that advance together.

        Returns:
            What the network returns for that frame: a tensor without, respectively with, the
            lane dimension, or a tuple of them when the Program has several outputs.

        Raises:
            EngineError: the frame is no such tensor, there are more or fewer lanes than before, or
                several that the network would mix, or an output has not one row for a frame.
        """
        frame = real_tensor(frame)
        lanes = frame if frame.dim() == 4 else frame[None]
        _check_shape(lanes, "(C, H, W), or (N, C, H, W) with N of at least 1", dims=(4,))
        if len(lanes) > 1 and not self._takes_several(lanes):
            msg = (
                f"{len(lanes)} lanes, which this network would mix; expected (C, H, W), and a "
                "network for each lane"
            )
            raise EngineError(msg)
        outputs, _ = self._advance(lanes, frames=1)
        if frame.dim() != 4:
            outputs = tuple(_only_row(value) for value in outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, frames: Tensor) -> tuple[tuple[Tensor, ...], FrameDensities]:
        """The outputs for T consecutive frames of one lane, each layer taking all T at once.

        The same recurrence as T calls of :meth:`step`, with the weights read once. A network that
        would mix frames takes them one after the other.

        Args:
            frames: (T, C, H, W).

        Returns:
            One (T, ...) tensor for each output of the Program, and what the layers saw.

        Raises:
            EngineError: the frames are no such tensor, the frame before had several lanes, or an
                output of a network that would mix frames has not one row for a frame.
        """
        frames = real_tensor(frames)
        # A Program of fully-connected layers alone may take vectors.
        is_of_images = any(op.kind == "conv" for op in self.program.ops)
        dims = (4,) if is_of_images else (2, 4)
        _check_shape(frames, "(T, C, H, W) with T of at least 1", dims=dims)
        if len(frames) == 1 or self._takes_several(frames):
            return self._advance(frames, frames=len(frames))
        each = [self._advance(frame[None], frames=1) for frame in frames]
        outputs = zip(*(values for values, _ in each), strict=True)
        rows = tuple(_stacked([_only_row(value) for value in values]) for values in outputs)
        return rows, _joined([seen for _, seen in each])

    def stats(self) -> tuple[LayerCost, ...]:
        """Cost of each linear layer, averaged over all frames since construction.

        ``density_delta`` is over the frames that were not key frames (NaN if there were none).
        """
        names = self.program.linear_names()
        maps = {op.name: op.linear_map for op in self.program.linear_ops}
        return tuple(
            LayerCost(
                name=names[name],
                macs=total.macs,
                input_elements=total.input_elements,
                output_elements=total.output_elements,
                density=_ratio(total.density, total.frames),
                density_delta=_ratio(total.density_delta, total.delta_frames),
                channels=Channels(*maps[name].channels()),
            )
            for name, total in self._totals.items()
        )

    def _takes_several(self, frames: Tensor) -> bool:
        """Whether the network keeps frames apart; found out once."""
        self._check(frames)
        if self._apart is None:
            self._apart = keeps_frames_apart(self.program, frames)
        return self._apart

    def _check(self, frames: Tensor) -> None:
        """Refuses a network of whose frames something else is made; found out once."""
        if self._given is not None and refuse_other_numbers(self._given, self.program, frames):
            self._given = None

    def _advance(self, x: Tensor, *, frames: int) -> tuple[tuple[Tensor, ...], FrameDensities]:
        """Runs ``x`` (frames * lanes, C, H, W), time first."""
        self._check(x)
        with torch.inference_mode():
            outputs, seen = self._compute(x, frames=frames)
        self._given = None  # frames fit: a network that refuses one by itself will do so again
        return ordinary_values(outputs, x), seen

    def _compute(self, x: Tensor, *, frames: int) -> tuple[tuple[Any, ...], FrameDensities]:
        lanes = len(x) // frames
        if self._lanes not in (None, lanes):
            msg = (
                f"frames of {lanes} lanes after frames of {self._lanes}; expected as many, or "
                "reset() before"
            )
            raise EngineError(msg)
        is_first, self._lanes = self._lanes is None, lanes
        call = _Call(frames, lanes)

        def compute(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if op.kind in LINEAR_KINDS:
                return self._linear(op, args[0] if args else kwargs["input"], call)
            return op.call(*args, **kwargs)

        try:
            outputs = execute(self.program, x, compute)
        except BaseException:  # an interrupt, too
            if is_first:  # no frame was taken: the next one need not have its shape
                self.reset()
            raise
        return outputs, self._densities(call)

    def _linear(self, op: Op, flat: Tensor, call: _Call) -> Tensor:
        """One linear layer for all frames and lanes of a call."""
        linear, state = op.linear_map, self._states[op.name]
        x = _by_time(flat, call.frames)  # (T, N, ...)
        begins = state.snapshot is None
        if state.snapshot is not None:
            deltas, snapshot = self._truncate(op, x, state.snapshot)
        elif len(x) > 1:  # the first is a key frame: nothing of it is truncated
            deltas, snapshot = self._truncate(op, x[1:], x[0])
            deltas = torch.cat([x[:1], deltas])
        else:
            deltas, snapshot = x, x[0].clone()

        if self._tracks:
            call.truncated.append(self._held_back(x, deltas, state.snapshot))
        responses = _by_time(linear.apply(deltas.flatten(0, 1)), call.frames)  # (T, N, ...)
        # In half precision a small delta would be lost in a large sum, for ever.
        sums = responses.to(torch.promote_types(responses.dtype, torch.float32))
        self._accumulate(sums, state.accumulator if not begins else linear.bias_like(sums[0]))
        finite = bool(torch.isfinite(deltas).all()) and bool(torch.isfinite(sums).all())
        y = sums.to(responses.dtype)
        if finite:
            self._states[op.name] = _LayerState(snapshot, sums[-1].clone())
        else:
            # A NaN or infinity would stay in the accumulator for ever: compute these frames
            # densely, and begin anew with the next one.
            deltas, y = x, _by_time(linear(x.flatten(0, 1)), call.frames)
            self._states[op.name] = _LayerState()
            if self._tracks:
                call.truncated[-1].zero_()
        dense = torch.full((call.frames,), not finite, device="cpu")
        dense[0] = dense[0] or begins
        if self._observer is not None:
            self._observer(op, deltas, dense)
        self._count(op, x, deltas, y, dense, call)
        return y.flatten(0, 1)

    def _truncate(self, op: Op, x: Tensor, snapshot: Tensor) -> tuple[Tensor, Tensor]:
        threshold = self.thresholds[op.name] * self._scale
        return truncated_deltas(x, snapshot, threshold=threshold, policy=self.policy)

    def _held_back(self, x: Tensor, deltas: Tensor, snapshot: Tensor | None) -> Tensor:
        """Sums of squares of what ``deltas`` (T, N, ...) leaves out of each frame, (T,) float64."""
        sums = torch.zeros(len(x), **_ON_CPU)
        for time in range(len(x)):
            if snapshot is not None:
                passed = deltas[time] != 0
                held = (x[time] - snapshot).masked_fill_(passed, 0)
                # There: Apple's GPUs have no float64.
                sums[time] = float(held.cpu().square().sum(dtype=torch.float64))
            if snapshot is None or self.policy == "paper":
                snapshot = x[time]
            else:
                snapshot = torch.where(passed, x[time], snapshot)
        return sums

    @staticmethod
    def _accumulate(y: Tensor, before: Tensor | None) -> None:
        """Turns responses to deltas (T, N, ...) into outputs, in place: a running sum over time."""
        if before is not None:
            y[0] += before
        for time in range(1, len(y)):
            y[time] += y[time - 1]

    def _count(
        self, op: Op, x: Tensor, deltas: Tensor, y: Tensor, dense: Tensor, call: _Call
    ) -> None:
        elements = x[0].numel()
        each = tuple(range(1, x.dim()))
        density = torch.count_nonzero(x, dim=each).cpu().double() / elements
        density_delta = torch.count_nonzero(deltas, dim=each).cpu().double() / elements
        total = self._totals[op.name]
        # Not by x.shape[1]: a layer may read several rows of each lane.
        total.input_elements = elements // call.lanes
        total.output_elements = y[0].numel() // call.lanes
        total.macs = total.output_elements * op.linear_map.macs_per_output()
        total.frames += call.frames
        total.delta_frames += int((~dense).sum())
        total.density += float(density.sum())
        total.density_delta += float(density_delta[~dense].sum())
        call.density.append(density)
        call.density_delta.append(density_delta)
        call.dense.append(dense)

    def _densities(self, call: _Call) -> FrameDensities:
        tracked = torch.zeros((call.frames, 0), **_ON_CPU) if self._tracks else None
        if not call.density:
            empty = torch.zeros((call.frames, 0), **_ON_CPU)
            ones = torch.ones(call.frames, **_ON_CPU)
            return FrameDensities(
                density=empty,
                density_delta=empty,
                key_frame=ones.bool(),
                work=ones,
                truncated=tracked,
            )
        density_delta = torch.stack(call.density_delta, dim=1)
        dense = torch.stack(call.dense, dim=1)
        macs = torch.tensor([t.macs for t in self._totals.values()], **_ON_CPU)
        share = torch.where(dense, 1.0, density_delta)
        return FrameDensities(
            density=torch.stack(call.density, dim=1),
            density_delta=density_delta,
            key_frame=dense.all(dim=1),
            work=(share * macs).sum(dim=1) / macs.sum(),
            truncated=torch.stack(call.truncated, dim=1) if self._tracks else None,
        )


def layer_thresholds(program: Program, threshold: float | Mapping[str, float]) -> dict[str, float]:
    """The threshold of each linear layer.

    A name in the mapping is the layer's node name, the module it came from, or a module that
    contains it (the longest match counts); "default" is for the rest, 0 if not given. A layer
    whose input is signs (XNOR-Net) has 0 in any case: its differences are 0, 2 or -2, and there is
    nothing to truncate (Sec. 4.3).

    Raises:
        ConfigError: a threshold is negative or not a number.
        LayerError: a name fits no convolution or fully-connected layer.
    """
    given = dict(threshold) if isinstance(threshold, Mapping) else {"default": threshold}
    given = {name: threshold_number(value, name) for name, value in given.items()}
    default = given.pop("default", 0.0)
    binary = sign_readers(program)
    thresholds: dict[str, float] = {}
    used: set[str] = set()
    for op in program.linear_ops:
        names = [
            name
            for name in given
            if any(own == name or own.startswith(f"{name}.") for own in (op.name, op.source))
        ]
        used.update(names)
        own = given[max(names, key=len)] if names else default
        thresholds[op.name] = 0.0 if op.name in binary else own
    unknown = [name for name in given if name not in used]
    if unknown:
        known = ", ".join(op.source or op.name for op in program.linear_ops[:4])
        msg = (
            f"threshold for {unknown[0]!r}, which is no convolution or fully-connected layer "
            f"that the output of this network depends on; expected names such as {known}"
        )
        raise LayerError(msg)
    return thresholds


def _check_shape(frames: Tensor, wanted: str, *, dims: tuple[int, ...]) -> None:
    if frames.dim() not in dims or len(frames) == 0:
        msg = f"frames of shape {tuple(frames.shape)}; expected {wanted}"
        raise EngineError(msg)


def _only_row(value: Any) -> Any:
    """An output of one frame, or each of several in a tuple, without its first dimension.

    Raises:
        EngineError: that dimension is not one.
    """
    if isinstance(value, (tuple, list)):
        return tuple(map(_only_row, value))
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if len(value) != 1:
        msg = (
            f"an output is a tensor of shape {tuple(value.shape)} for one frame; expected "
            "(1, ...), a row for each frame: choose another layer"
        )
        raise EngineError(msg)
    return value[0]


def _stacked(rows: Sequence[Any]) -> Any:
    """The outputs of some frames as one, (T, ...)."""
    if isinstance(rows[0], tuple):
        return tuple(map(_stacked, zip(*rows, strict=True)))
    return torch.stack(list(rows))


def _joined(parts: Sequence[FrameDensities]) -> FrameDensities:
    """The same for the frames of several calls."""
    truncated = [part.truncated for part in parts if part.truncated is not None]
    return FrameDensities(
        density=torch.cat([part.density for part in parts]),
        density_delta=torch.cat([part.density_delta for part in parts]),
        key_frame=torch.cat([part.key_frame for part in parts]),
        work=torch.cat([part.work for part in parts]),
        truncated=torch.cat(truncated) if truncated else None,
    )


def _by_time(x: Tensor, frames: int) -> Tensor:
    """(T * N, ...) as (T, N, ...)."""
    return x.reshape(frames, -1, *x.shape[1:])


def _ratio(total: float, count: int) -> float:
    return total / count if count else float("nan")
