"""Networks with more arguments than the picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrm_extract.engine import NativeNetwork
from rrm_extract.errors import TraceError
from rrm_extract.graph import fold_batch_norm, trace
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.engines import AVAILABLE


class Conv(nn.Module):
    """A convolution, to be called with more than the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)


class OptionalSize(Conv):
    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        y: Tensor = self.conv(x)
        return y if size is None else F.interpolate(y, scale_factor=2)


class OptionalScale(Conv):
    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        y: Tensor = self.conv(x)
        if scale is not None:
            y = y * scale
        return y


class Flags(Conv):
    def forward(self, x: Tensor, *, mode: str = "half", twice: bool = True) -> Tensor:
        y: Tensor = self.conv(x)
        if mode == "half":
            y = y[:, :2]
        return y * 2 if twice else y


class Variadic(Conv):
    def forward(self, x: Tensor, *others: Tensor, **options: Any) -> Tensor:
        y: Tensor = self.conv(x)
        for other in others:
            y = y + other
        return y * options.get("factor", 3)


@pytest.mark.parametrize("net", [OptionalSize, OptionalScale, Flags, Variadic])
def test_other_arguments_have_their_defaults(net: type[Conv]) -> None:
    module = net().eval()
    image = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = module(image)
    assert relative_l2(trace(module)(image)[0], expected) < 1e-6


class ByKeyword(Conv):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.mix = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.mix(input=self.norm(input=self.conv(input=x)))
        return result


def test_layers_can_be_called_by_keyword() -> None:
    module = ByKeyword().eval()
    frames = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = module(frames)
    program = fold_batch_norm(trace(module))
    assert relative_l2(program(frames)[0], expected) < 1e-6
    if "native" in AVAILABLE:
        native = NativeNetwork(program, input_shape=(3, 8, 8), threshold=0)
        assert relative_l2(native.run(frames)[0][0], expected) < EXACT_RECURRENCE


class OnlyVariadic(Conv):
    def forward(self, *pictures: Tensor) -> Tensor:
        return torch.cat([self.conv(picture) for picture in pictures])


def test_no_picture_among_the_arguments_fails() -> None:
    with pytest.raises(TraceError, match="OnlyVariadic"):
        trace(OnlyVariadic())
