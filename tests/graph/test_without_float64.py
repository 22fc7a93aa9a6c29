"""Networks on devices that have no float64, as Apple's GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import rrm_extract
from rrm_extract.graph import BinaryConv2d, Sign
from tests.graph import nets


class _There(Tensor):
    """A tensor on such a device: it comes to the CPU as an ordinary one."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if func is Tensor.cpu:
            return result.as_subclass(Tensor)
        if isinstance(result, Tensor) and result.dtype == torch.float64:
            msg = "Cannot convert a MPS Tensor to float64 dtype"
            raise TypeError(msg)
        return result

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.detach().clone()


def _moved(module: nn.Module) -> nn.Module:
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.detach().as_subclass(_There))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.as_subclass(_There)
    return module


class _All(nn.Module):
    """What float64 is used for: folding, with and without a bias, binary layers, squeeze()."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), Sign())
        self.second = BinaryConv2d(4, 6, 3)
        self.third = nn.Sequential(nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x))).mean((2, 3), keepdim=True).squeeze()


def test_nothing_is_made_float64_there() -> None:
    torch.manual_seed(0)
    module = nets.randomised(_All())
    frames = torch.randn(2, 3, 8, 8)
    expected = [rrm_extract.accelerate(module, threshold=0).step(frame) for frame in frames]
    network = rrm_extract.accelerate(_moved(module), threshold=0)
    for frame, feature in zip(frames, expected, strict=True):
        result = network.step(frame.as_subclass(_There))
        assert isinstance(result, _There)
        assert torch.equal(result.cpu(), feature)
