"""Darknet's networks beside OpenCV, which reads the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rrm_extract.models.darknet.published import PUBLISHED, published_text
from tests.models.darknet import build, by_opencv, cfg, conv, images, resized, without_region

TOLERANCE = 1e-4
"""Of outputs of order one."""

SMALL = {
    "batch normalisation": [conv(8, batch_normalize=1), conv(5, 1)],
    "linear and logistic": [conv(8, activation="linear"), conv(5, 1, activation="logistic")],
    "stride and no padding": [conv(8, stride=2), conv(6, pad=0), conv(6, 5, pad=0, padding=1)],
    "groups": [conv(8), conv(12, groups=4, batch_normalize=1), conv(12, groups=12), conv(4, 1)],
    "maximum": [conv(8), "[maxpool] size=2 stride=2", conv(4, 1)],
    "maximum, odd size": [conv(8, pad=0, size=4), "[maxpool] size=2 stride=2", conv(4, 1)],
    "maximum, one-sided padding": [conv(8), "[maxpool] size=2 stride=1", conv(4, 1)],
    "maximum, 4 wide": [conv(8), "[maxpool] size=4 stride=1", conv(4, 1)],
    "maximum, 5 wide": [conv(8), "[maxpool] size=5 stride=1", conv(4, 1)],
    "maximum, 3 wide, stride 2": [conv(8), "[maxpool] size=3 stride=2", conv(4, 1)],
    "maximum, own padding": [conv(8), "[maxpool] size=3 stride=2 padding=1", conv(4, 1)],
    "maximum, no padding": [conv(8), "[maxpool] size=2 stride=1 padding=0", conv(4, 1)],
    "average": [conv(8), "[avgpool]", conv(4, 1)],
    "upsample": [conv(8, stride=2), "[upsample] stride=2", conv(4)],
    "reorg": [conv(8), "[reorg] stride=2", conv(6)],
    "reorg, odd rows": [conv(8, pad=0), "[reorg] stride=2", conv(6)],
    "reorg by 4": [conv(16), "[reorg] stride=4", conv(6)],
    "passthrough": [
        conv(8), conv(6, stride=2), "[route] layers=-2", conv(4, 1), "[reorg] stride=2",
        "[route] layers=-1,-4", conv(5),
    ],
    "route to layers by number": [conv(8), conv(6), "[route] layers=0,1,0", conv(5)],
    "shortcut": [conv(8), conv(8), "[shortcut] from=-2 activation=linear", conv(5)],
    "shortcut with activation": [conv(8), conv(8), "[shortcut] from=0 activation=leaky", conv(5)],
    "shortcut from more channels": [conv(12), conv(8), "[shortcut] from=-2", conv(5)],
    "shortcut from fewer channels": [conv(8), conv(12), "[shortcut] from=-2", conv(5)],
}  # fmt: skip


@pytest.mark.parametrize("sections", SMALL.values(), ids=SMALL)
def test_section(sections: list[str], tmp_path: Path) -> None:
    text = cfg(*sections)
    network = build(text)
    x = images(network)
    expected = by_opencv(text, network, x, tmp_path)
    actual = network(x).numpy()
    assert np.stack(expected).std() > 0.05
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.shape == theirs[0].shape
        np.testing.assert_allclose(mine, theirs[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("side", [160, 224])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_network(name: str, side: int, tmp_path: Path) -> None:
    text = without_region(resized(published_text(name), side))
    network = build(text)
    x = images(network, 1)
    (expected,) = by_opencv(text, network, x, tmp_path)
    actual = network(x)
    assert actual.shape == (1, 425, side // 32, side // 32)
    assert 0.3 < float(actual.std()) < 10
    # Rounding is in proportion to the numbers, and another processor's is another.
    atol = TOLERANCE * max(1.0, float(expected.std()))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=atol)
