"""Whether a network makes of several frames what it makes of each by itself."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrm_extract.graph import ChannelScale, LinearMap, Op, Program, execute
from rrm_extract.graph.dimensions import dimensions
from rrm_extract.graph.kinds import kind_of_module
from rrm_extract.graph.program import LINEAR_KINDS
from rrm_extract.graph.trace import MethodCall
from rrm_extract.rrm.frames import FrameByFrame, squeezed

__all__ = ["keeps_frames_apart", "same_apart"]

TOLERANCE = 1e-3
"""Of the largest number: kernels for several frames may sum in another order."""

SCALES = (1.0, 3.0)
"""Of the numbers in the two frames: what mixes them, such as statistics of both, shows."""

_FUNCTIONS = (
    operator.add,
    torch.add,
    operator.mul,
    torch.mul,
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    F.relu,
    F.relu6,
    F.silu,
    F.gelu,
    F.hardswish,
    F.hardsigmoid,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    squeezed,
)
_FLATTENS = (torch.flatten, MethodCall("flatten"))


@torch.inference_mode()
def keeps_frames_apart(program: Program, like: Tensor) -> bool:
    """Whether frames may be handed to a network together.

    Layers, activations and the like keep them apart. Of other operations nobody knows: a network
    that has some is tried on two frames of random numbers, together and apart.

    Args:
        program: the network.
        like: (N, ...), frames as it takes them.
    """
    if _is_known_to(program):
        return True
    generator = torch.Generator("cpu").manual_seed(0)
    scales = torch.tensor(SCALES, device="cpu").reshape(2, *[1] * (like.dim() - 1))
    noise = torch.rand(2, *like.shape[1:], generator=generator, device="cpu")
    drawn = (noise * 2 - 1) * scales
    frames = drawn.to(like)
    with torch.random.fork_rng(devices=[]):
        alone = [_seen(program, frame[None]) for frame in frames]
        try:
            together = _seen(program, frames)
        except Exception:  # noqa: BLE001 - it may refuse two frames as it likes
            return False
    return all(same_apart(*values) for values in zip(together, *alone, strict=True))


def same_apart(together: Any, first: Any, second: Any) -> bool:
    """Whether a value for two frames is that of the first, then that of the second."""
    values = (together, first, second)
    if all(isinstance(value, (tuple, list)) for value in values):
        return len(together) == len(first) == len(second) and all(
            same_apart(*each) for each in zip(*values, strict=True)
        )
    if not all(isinstance(value, Tensor) for value in values):
        return not any(isinstance(value, Tensor) for value in values) and (
            bool(together == first) and bool(together == second)
        )
    if first.dim() == 0 or second.dim() == 0 or first.shape[1:] != second.shape[1:]:
        return False
    expected = torch.cat([first, second])
    if together.shape != expected.shape or together.dtype != expected.dtype:
        return False
    if not together.is_floating_point():
        return torch.equal(together, expected)
    most = float(expected.nan_to_num(0, 0, 0).abs().max()) if expected.numel() else 0.0
    return torch.allclose(together, expected, rtol=0, atol=TOLERANCE * most, equal_nan=True)


def _seen(program: Program, frames: Tensor) -> list[Any]:
    """What the layers read, and the outputs that depend on frames."""
    inputs: list[Any] = []

    def compute(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if op.kind in LINEAR_KINDS:
            inputs.append(args[0])
        return op.call(*args, **kwargs)

    outputs = execute(program, frames, compute)
    constants = _constants(program)
    named = zip(program.outputs, outputs, strict=True)
    return inputs + [value for name, value in named if name not in constants]


def _constants(program: Program) -> set[str]:
    """Names of parameters, buffers, and what is made of nothing but such."""
    constants: set[str] = set()
    for op in program.ops:
        if constants.issuperset(op.inputs):
            constants.add(op.name)
    return constants


def _is_known_to(program: Program) -> bool:
    constants = _constants(program)
    numbers = dimensions(program)
    for op in program.ops:
        if op.name in constants:
            continue
        if not _is_known(op) or not constants.isdisjoint(op.inputs):  # of which shape, who knows
            return False
        if op.kind in ("add", "multiply") and len(op.inputs) > 1:
            # Of a value with fewer dimensions the frames meet another's channels or rows.
            found = [numbers.get(name) for name in op.inputs]
            if None in found or len(set(found)) > 1:
                return False
    return True


def _is_known(op: Op) -> bool:
    call = op.call
    if isinstance(call, nn.Flatten):
        return call.start_dim == 1
    if isinstance(call, nn.Module) and not isinstance(call, ChannelScale):
        kept = ("norm", "activation", "pool", "identity")
        return kind_of_module(call) in kept and not isinstance(call, nn.Softmax)
    if call in _FLATTENS:
        return op.args[1:2] == (1,) or op.kwargs.get("start_dim") == 1
    if call == MethodCall("mean"):
        return op.args[1:2] in (([2, 3],), ((2, 3),))
    if call is torch.cat:
        return op.args[1:2] == (1,) or op.kwargs.get("dim") == 1
    known = isinstance(call, (LinearMap, ChannelScale, FrameByFrame)) or call in _FUNCTIONS
    return known or op.kind == "identity"
