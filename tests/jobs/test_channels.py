"""Maps with their channels last are averaged over space all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import Permute

from rrm_extract.config import JobConfig
from rrm_extract.graph import dense_module, select, trace
from rrm_extract.jobs import make_recipe
from rrm_extract.jobs.channels import channels_first
from rrm_extract.models import load_model


def _to_vector() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def back(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


class Moves(nn.Module):
    """A convolution, and its channels moved about."""

    def __init__(self, path: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.path = nn.Conv2d(3, 7, 1), path

    def forward(self, x: Tensor) -> Tensor:
        return self.path(self.conv(x))


class Gated(nn.Module):
    """A map times a number for each of its channels, which a fully-connected layer makes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 1), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (self.fc(y.mean((2, 3)))[:, :, None, None] * y).relu()


class Windows(nn.Module):
    """As timm's Swin: pixels in a row for some layers, then in rows and columns again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 6, 1), nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x).permute(0, 2, 3, 1))
        rows = y.reshape(y.shape[0], -1, 6)
        return (rows + self.fc(rows)).reshape(y.shape[0], 4, 6, 6)


@pytest.mark.parametrize(
    ("make", "is_last"),
    [
        (lambda: nn.Conv2d(3, 7, 1), False),
        (lambda: Moves(lambda x: x.permute(0, 2, 3, 1)), True),
        (lambda: Moves(lambda x: torch.permute(x, (0, 2, 3, 1)).relu()), True),
        (lambda: Moves(lambda x: x.transpose(1, 2).transpose(-1, 2)), True),
        (lambda: Moves(lambda x: x.transpose(1, -1)), True),
        (lambda: Moves(lambda x: x.transpose(1, dim1=3)), True),
        (lambda: Moves(lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)), False),
        (lambda: nn.Sequential(nn.Conv2d(3, 5, 1), Permute([0, 2, 3, 1]), nn.LayerNorm(5)), True),
        (lambda: nn.Sequential(Permute([0, 2, 3, 1]), nn.Linear(3, 7), nn.GELU()), True),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.MaxPool2d(2)), False),
        (Gated, False),
        (Windows, True),
        (lambda: nn.Sequential(*_to_vector(), nn.Linear(3, 56), nn.Unflatten(1, (7, 2, 4))), False),
        (lambda: nn.Sequential(*_to_vector(), nn.Linear(3, 7), nn.Hardswish()), False),
    ],
)
def test_channels_come_first(make: Callable[[], nn.Module], is_last: bool) -> None:
    module = make().eval()
    x = torch.randn(2, 3, 4, 6)
    expected = module(x)
    program = channels_first(trace(module), (3, 4, 6))
    (result,) = program(x)
    assert torch.equal(result, back(expected) if is_last else expected)
    assert torch.equal(dense_module(program, in_place=True)(x), result)


@pytest.mark.parametrize("layer", ["features.3", "norm", "features.7"])
def test_transformers_that_keep_them_last(layer: str) -> None:
    program = select(trace(models.swin_t(weights=None).eval()), (layer,))
    program = channels_first(program, (3, 64, 64))
    (feature,) = program(torch.zeros(1, 3, 64, 64))
    channels = {"features.3": 192}.get(layer, 768)
    assert feature.shape[:2] == (1, channels)


def test_features_are_means_over_space() -> None:
    config = JobConfig(model="swin_t", weights="random:0", layer="features.1", engine="torch")
    recipe = make_recipe(load_model(config.model, weights=config.weights), config)
    assert recipe.feature_shape == (96,)
    assert recipe.layer.startswith("features.1.")
