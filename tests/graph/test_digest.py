"""Digests tell networks apart by what they compute, in every process alike."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrm_extract.graph import digest_of, trace
from rrm_extract.graph.settings import untold_settings


class Attention(nn.Module):
    """Attention over the pixels of an image."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3)
        self.attention = nn.MultiheadAttention(64, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).flatten(2).transpose(1, 2)
        result: Tensor = self.attention(y, y, y)[0]
        return result


def transformer(**options: object) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)  # type: ignore[arg-type]
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.Linear(36, 8), layer)


def pooled(**options: object) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, padding=1, **options))  # type: ignore[arg-type]


def enlarged(**options: object) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Upsample(scale_factor=2, mode="bilinear", **options),  # type: ignore[arg-type]
    )


OTHERS: dict[str, list[Callable[[], nn.Module]]] = {
    "heads": [lambda: Attention(4), lambda: Attention(8)],
    "norm first": [transformer, lambda: transformer(norm_first=True)],
    "function": [transformer, lambda: transformer(activation=F.gelu)],
    "part of a part": [transformer, lambda: transformer(dropout=0.2)],
    "padding": [pooled, lambda: pooled(count_include_pad=False)],
    "last row": [pooled, lambda: pooled(ceil_mode=True)],
    "corners": [enlarged, lambda: enlarged(align_corners=True)],
}


def digest(make: Callable[[], nn.Module]) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return digest_of(trace(make().eval()))


@pytest.mark.parametrize("what", OTHERS)
def test_networks_that_differ_in_what_their_words_do_not_tell(what: str) -> None:
    one, other = OTHERS[what]
    assert digest(one) != digest(other)
    assert digest(other) == digest(other)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(), nn.ELU(), nn.GELU(), nn.SiLU(),
        nn.Hardtanh(-2, 2), nn.Softplus(2), nn.Softmax(1), nn.BatchNorm2d(8), nn.LayerNorm(8),
        nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(2), nn.AdaptiveAvgPool2d((2, 3)), nn.ZeroPad2d(1), nn.Flatten(),
        nn.Dropout(0.3), nn.PixelShuffle(2), nn.Upsample(scale_factor=2), nn.Embedding(3, 4),
        nn.ConvTranspose2d(3, 8, 3, stride=2, padding=1), nn.Bilinear(2, 3, 4),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_layers_that_their_words_tell_whole_keep_their_digest(layer: nn.Module) -> None:
    assert list(untold_settings(layer.eval())) == []


class Own(nn.Module):
    """A leaf of somebody's own, with settings of all kinds."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.names = ("a", None, 0.5)
        self.function = torch.relu
        self.kind = torch.float64
        self.anything = object()
        self._cache = 3

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) * self.steps


def test_settings_of_a_leaf_of_ones_own() -> None:
    assert list(untold_settings(Own(2))) == [
        (".function", torch.relu),
        (".kind", torch.float64),
        (".names", ("a", None, 0.5)),
        (".steps", 2),
    ]
    two, again, three = (digest_of(trace(Own(n), leaf_modules=[Own])) for n in (2, 2, 3))
    assert two == again != three


def test_a_digest_is_the_same_in_another_process() -> None:
    code = (
        "from tests.graph.test_digest import OTHERS, digest\n"
        "print(*(digest(make) for pair in OTHERS.values() for make in pair))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert found == [digest(make) for pair in OTHERS.values() for make in pair]
