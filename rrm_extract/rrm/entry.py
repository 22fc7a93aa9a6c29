"""The one-line way in: a PyTorch network, made recurrent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from rrm_extract.errors import LayerError
from rrm_extract.graph import Program, fold, prune, select, trace
from rrm_extract.rrm.module import RecurrentNetwork
from rrm_extract.rrm.truncate import Policy

__all__ = ["accelerate"]


def accelerate(
    model: nn.Module,
    *,
    threshold: float | Mapping[str, float] = 1e-4,
    policy: Policy = "bounded",
    layer: str | None = None,
    leaf_modules: Sequence[type[nn.Module]] = (),
    leaf_functions: Sequence[Callable[..., object]] = (),
) -> RecurrentNetwork:
    """Makes a CNN compute only what changed since the frame before.

    The model is used in evaluation mode; its weights are shared where they are not computed
    from others and batch normalisation does not have to be folded into them, and never changed.
    It may be on any device. On NVIDIA GPUs set ``torch.backends.cudnn.allow_tf32 = False`` first:
    convolutions would else round what they multiply to ten bits, which adds up over frames.

        >>> import rrm_extract, torchvision
        >>> network = rrm_extract.accelerate(torchvision.models.resnet18(), threshold=1e-4)
        >>> for frame in frames:              # (3, 224, 224), normalised as the model expects
        ...     logits = network.step(frame)  # (1000,)
        >>> network.reset()                   # before the next clip

    Args:
        model: any network that torch.fx can trace, with one (N, C, H, W) input.
        threshold: see :class:`RecurrentNetwork`; 0 gives the ordinary network's features up to
            rounding.
        policy: "bounded" or "paper".
        layer: node name of the value to return; None for the model's own output.
        leaf_modules: classes that torch.fx shall not trace into.
        leaf_functions: functions that torch.fx shall not trace into.

    Returns:
        An object with ``step(frame)``, ``reset()`` and ``stats()``, and with a state of its own.

    Raises:
        TraceError: the model is no network, or cannot be traced.
        LayerError: there is no such layer, or the model returns a parameter of its own.
        ConfigError: the threshold or the policy is unusable.
    """
    program = trace(model, leaf_modules=leaf_modules, leaf_functions=leaf_functions)
    program = _whole(program) if layer is None else select(program, (layer,))
    return RecurrentNetwork(fold(program), threshold=threshold, policy=policy)


def _whole(program: Program) -> Program:
    """All that the model returns, be it the frame itself."""
    constants = {op.name for op in program.ops if op.kind == "constant"}
    for name in program.outputs:
        if name in constants:
            msg = (
                f"the model returns {name!r}, which is the same for all frames and has no lanes; "
                "expected values of the frame: choose one with layer=NAME"
            )
            raise LayerError(msg)
    return prune(program)
