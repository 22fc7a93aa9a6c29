"""A Program in which the frames of one call do not see each other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrm_extract.errors import EngineError
from rrm_extract.graph import Op, Program
from rrm_extract.graph.trace import MethodCall, is_fact

__all__ = ["FrameByFrame", "by_frame", "refuse_other_numbers"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_BATCH_NORM_NAMES = (
    "input",
    "running_mean",
    "running_var",
    "weight",
    "bias",
    "training",
    "momentum",
    "eps",
)
_SQUEEZES = (torch.squeeze, MethodCall("squeeze"))


@dataclass(frozen=True, eq=False)
class FrameByFrame:
    """An operation that would mix the rows of its first argument, on each of them by itself."""

    call: Callable[..., Any]

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(N, ...) -> (N, ...)."""
        return torch.cat([self.call(row, *args, **kwargs) for row in x.chunk(len(x))])


def squeezed(x: Tensor) -> Tensor:
    """``x.squeeze()`` of all dimensions but the first, which counts frames: one frame keeps it."""
    return x.reshape(*x.shape[:1], *(size for size in x.shape[1:] if size != 1))


def by_frame(program: Program) -> Program:
    """The same network with every frame computed as if it were alone.

    Networks are written for batches, and a few operations treat a batch of several frames in
    another way than each of them: ``squeeze()`` drops the dimension of frames where there is but
    one, and batch normalisation without running statistics takes those of the whole batch.

    An argument ``input`` that is given by its name becomes the first one, so that nobody else has
    to look for it in two places.

    Args:
        program: left as it is.

    Returns:
        A Program with the same names; twice gives what once does.
    """
    moving = {program.input}  # values that hold numbers of frames
    ops: list[Op] = []
    for op in program.ops:
        op = _input_first(op)
        if not moving.isdisjoint(op.inputs) and not is_fact(op):
            moving.add(op.name)
            op = _alone(op)
        ops.append(op)
    return replace(program, ops=tuple(ops))


def refuse_other_numbers(program: Program, alone: Program, like: Tensor) -> bool:
    """Refuses a network of whose frames :func:`by_frame` makes something else.

    Where ``squeeze()`` drops the dimension of a single frame, what follows may count dimensions
    without it: ``normalize(x.squeeze(), dim=0)`` is right for one frame as the network has it, and
    wrong for a frame that keeps its dimension. Networks with nothing to change are not tried.

    Args:
        program: the network.
        alone: what :func:`by_frame` made of it.
        like: (N, ...), frames as it takes them.

    Returns:
        Whether that is known; False where the network itself takes no such frame by itself.

    Raises:
        EngineError: outputs differ for a frame of random numbers.
    """
    changed = [
        op.name
        for op, other in zip(program.ops, alone.ops, strict=True)
        if op.call is not other.call
    ]
    if not changed:
        return True
    generator = torch.Generator("cpu").manual_seed(0)
    noise = torch.rand(1, *like.shape[1:], generator=generator, dtype=torch.float32, device="cpu")
    frame = (noise * 2 - 1).to(like)
    with torch.random.fork_rng(devices=[frame.device] if frame.is_cuda else []):
        _seed(frame)
        try:
            expected = copy.deepcopy(program)(frame)  # running statistics stay as they are
        except Exception:  # noqa: BLE001 - it may refuse a single frame, or any, as it likes
            return False
        _seed(frame)  # what draws at random draws the same
        try:
            found = alone(frame)
        except Exception as error:
            raise EngineError(
                _other_numbers(changed, f"{type(error).__name__}: {error}")
            ) from error
    if not _same_numbers(expected, found):
        raise EngineError(_other_numbers(changed, "it gives other numbers"))
    return True


def _seed(frame: Tensor) -> None:
    # torch.manual_seed would also seed other GPUs' generators, which nothing puts back.
    torch.default_generator.manual_seed(0)
    if frame.is_cuda:
        with torch.cuda.device(frame.device):
            torch.cuda.manual_seed(0)


def _same_numbers(value: Any, other: Any) -> bool:
    """Whether outputs, or tuples of such, hold the same, whatever their shapes."""
    if isinstance(value, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(value) == len(other) and all(map(_same_numbers, value, other))
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        return True
    a, b = (each.flatten().cpu().double() for each in (value, other))
    return len(a) == len(b) and torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True)


def _other_numbers(changed: Sequence[str], what: str) -> str:
    return (
        f"the network would treat a frame in another way if {', '.join(map(repr, changed))} kept "
        f"the dimension of frames ({what}); expected operations that name the dimensions they mean "
        "and count that of frames, such as flatten(1) for squeeze()"
    )


def _input_first(op: Op) -> Op:
    if op.args or "input" not in op.kwargs or op.kind == "other":
        return op
    rest = {name: value for name, value in op.kwargs.items() if name != "input"}
    return replace(op, args=(op.kwargs["input"],), kwargs=rest)


def _alone(op: Op) -> Op:
    if op.call in _SQUEEZES and len(op.args) == 1 and not op.kwargs:
        return replace(op, call=squeezed)
    if isinstance(op.call, _BATCH_NORMS):
        without_statistics = op.kind == "norm" and op.call.running_mean is None
        return replace(op, call=FrameByFrame(op.call)) if without_statistics else op
    if op.call is F.batch_norm:
        given = {**dict(zip(_BATCH_NORM_NAMES, op.args, strict=False)), **op.kwargs}
        if given.get("training") is True:
            # Nor does it update the running statistics, which are the caller's.
            given.update(running_mean=None, running_var=None)
            x = given.pop("input")
            return replace(op, call=FrameByFrame(F.batch_norm), args=(x,), kwargs=given)
    return op
