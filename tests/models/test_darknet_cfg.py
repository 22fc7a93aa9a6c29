"""Darknet's .cfg files: what is read of them, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rrm_extract.errors import ModelError
from rrm_extract.models.darknet import build_network, input_size, parse_cfg, read_cfg
from rrm_extract.models.darknet.published import PUBLISHED, published_cfg
from tests.models.darknet import REGION, build, cfg, conv


def test_spaces_comments_and_order_as_darknet_has_them() -> None:
    text = (
        "# a comment\n; another\n[net]\n width = 32 # not height\nheight=16\n\tchannels =3\n\n"
        "[convolutional]\r\nfil ters = 4\nactivation=linear\n"
    )
    net, layer = parse_cfg(text, file="net.cfg")
    assert (net.kind, layer.kind) == ("net", "convolutional")
    assert {key: option.text for key, option in net.options.items()} == {
        "width": "32", "height": "16", "channels": "3",
    }  # fmt: skip
    assert layer.options["filters"].line == 9
    assert layer.where == "net.cfg line 8"
    assert input_size([net]) == (16, 32)
    network = build_network([net, layer], size=(16, 32))
    assert network(torch.zeros(1, 3, 16, 32)).shape == (1, 4, 16, 32)


def test_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_bytes(b"\xef\xbb\xbf" + cfg(conv(4)).encode())
    assert len(read_cfg(tmp_path / "net.cfg")) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no sections; expected a Darknet .cfg file"),
        (b"\0\1\2\xff" * 100, "is no text; expected a Darknet .cfg file"),
        (b"x" * (1 << 20) + b"y", "a .weights file belongs to --weights"),
        (b"\0\0\0\0\n", "line 1: .* is longer than 1,000 characters, or no text"),
    ],
)
def test_other_files_fail(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "net.cfg").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_cfg(tmp_path / "net.cfg")


def test_a_missing_file_fails(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*nothing\.cfg'.*No such file"):
        read_cfg(tmp_path / "nothing.cfg")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[convolutional]\nfilters=3\n", r"begins with \[convolutional\]; .* begins with \[net\]"),
        ("width=3\n[net]\n", r"line 1: 'width=3' stands before the first section"),
        ("[net]\nwidth\n", r"line 2: 'width' is neither \[section\] nor key=value"),
        ("[net]\nwidth=\n", "line 2: 'width=' is neither"),
        ("[net\nwidth=3\n", r"line 1: '\[net' is no section"),
        ("[]\n", r"line 1: '\[\]' is no section"),
        ("[net]\nwidth=3\nwidth=4\n", "line 3: 'width' is given a second time, first in line 2"),
        ("[net]\n" + "w" * 500, r"line 2: '\w+\.\.\. is neither"),
        ("[net]\nwidth=" + "9" * 1000, r"line 2: 'width=9+\.\.\. is longer than 1,000"),
        ("[net]\nwidth=\x1b[2J", r"line 2: 'width=\\x1b\[2J' is longer than .*, or no text"),
    ],
)
def test_text_fails(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_cfg(text, file="net.cfg")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([], r"net\.cfg has no layers"),
        (["[yolo] mask=0"], r"line 5: section \[yolo\] is not supported; known are convolutional"),
        ([REGION], r"needs 2 x \(5 \+ 3\) = 16 channels; the layer before has 3"),
        ([conv(16), REGION, conv(4)], r"\[region\] is not the last section"),
        ([conv(15), REGION], r"needs 2 x \(5 \+ 3\) = 16 channels; the layer before has 15"),
        ([conv(16), REGION.replace("num=2", "num=3")], "anchors=.*: expected 6 numbers"),
        ([conv(16), REGION.replace("1.5", "-1.5")], "anchors=.*: expected numbers above 0"),
        ([conv(16), REGION.replace("1.5", "nan")], "anchors=.*: expected 4 numbers"),
        ([conv(16), REGION + " tree=9k.tree"], "tree=9k.tree: not supported"),
        ([conv(16), REGION + " background=1"], "background=1: not supported; expected 0"),
        ([conv(4) + " dilation=2"], r"line 10: \[convolutional\] dilation=2: not supported; .* 1"),
        ([conv(4) + " xnor=1"], "xnor=1: not supported; expected 0"),
        ([conv(4) + " stride_x=2"], "stride_x=2: not supported; known here: activation"),
        ([conv(4, activation="mish")], "activation=mish: expected one of leaky, linear"),
        (["[convolutional] filters=4"], "lacks 'activation', which it needs"),
        ([conv(0)], r"filters=0: expected a whole number in 1\.\."),
        ([conv(-4)], "filters=-4: expected a whole number"),
        ([conv(4, size="3.5")], "size=3.5: expected a whole number"),
        ([conv(4, groups=2)], "groups=2: expected a divisor of 3 inputs and 4 filters"),
        ([conv(4, 17, pad=0)], "size=17: larger than its input, 3x16x16"),
        ([conv(40_000, 1)] * 3, "parameters; expected at most 2,147,483,648"),
        ([conv(1 << 20, 1 << 20)], r"filters=1048576: 3,458,764,513,820,540,928 weights; expected"),
        ([conv(4), "[upsample] stride=64", "[upsample] stride=64", "[upsample] stride=64"],
         r"line \d+: \[upsample\] would give .* numbers"),
        ([conv(4), "[maxpool] size=17 padding=0"], "size=17: larger than its input, 4x16x16"),
        ([conv(4), "[maxpool] size=2 padding=3"], "padding=3: expected at most 2 with size 2"),
        ([conv(4, pad=0), conv(4, 2, pad=0), "[reorg] stride=2"], "its input is 4x13x13; .* of 32"),
        ([conv(6), "[reorg] stride=2"], "channels in multiples of 4"),
        ([conv(4), "[reorg] stride=2 reverse=1"], "reverse=1: not supported"),
        (["[route] layers=-1"], "layer -1 does not come before this one, which is layer 0"),
        ([conv(4), "[route] layers=1"], "layer 1 does not come before this one"),
        ([conv(4), "[route] layers=a"], "layers=a: expected whole numbers such as -1,-4"),
        ([conv(4), "[route] layers=-1 groups=2"], "groups=2: not supported; expected 1"),
        ([conv(4), conv(4, stride=2), "[route] layers=0,1"], "one size, got 4x16x16 and 4x8x8"),
        ([conv(4), conv(4, stride=3), "[shortcut] from=0"], "got 4x6x6 and 4x16x16"),
        ([conv(4), conv(4), "[shortcut] from=0,1"], "expected one earlier layer"),
        (["[shortcut] from=-1"], "expected one earlier layer"),
        ([conv(4), "[upsample] scale=inf"], "scale=inf: expected a number"),
    ],
)  # fmt: skip
def test_networks_fail(sections: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build(cfg(*sections))
    assert "\n" not in str(caught.value)
    assert "net.cfg" in str(caught.value)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("height=16", "lacks 'width', which it needs"),
        ("width=16\nheight=0", "height=0: expected a whole number in 1..16,384"),
        ("width=99999999999999999999\nheight=16", "expected a whole number in 1..16,384"),
        ("width=16\nheight=16\nchannels=1", "channels=1: expected 3, for frames are RGB"),
    ],
)
def test_sizes_fail(net: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        input_size(parse_cfg(f"[net]\n{net}\n", file="net.cfg"))


def test_options_of_training_are_ignored() -> None:
    plain, trained = (
        build(cfg(conv(16) + more, REGION + region))
        for more, region in (
            ("", ""),
            (" learning_rate=1 xnor=0", " jitter=.3 rescore=1 absolute=1"),
        )
    )
    assert str(plain) == str(trained)
    assert plain.region == trained.region


@given(st.text(alphabet="[]=#;-.,\n 0123456789netconvolutionalfiltersizepadwh", max_size=200))
def test_no_text_does_anything_but_work_or_be_refused(text: str) -> None:
    for begin in ("", "[net]\nwidth=8\nheight=8\n[convolutional]\nactivation=linear\n"):
        with suppress(ModelError), torch.device("meta"):
            build_network(parse_cfg(begin + text, file="net.cfg"), size=(8, 8))


def test_published_architectures() -> None:
    # The published files have 203,934,260 and 44,948,600 bytes, with headers of 16 and 20.
    counts = {"yolov2": (203_934_260 - 16) // 4, "tiny_yolov2": (44_948_600 - 20) // 4}
    layers = {"yolov2": (31, 23, 5), "tiny_yolov2": (15, 9, 6)}
    for name in PUBLISHED:
        with torch.device("meta"):
            network = build_network(published_cfg(name), size=(416, 416))
        in_file = sum(p.numel() for p in network.parameters()) + sum(
            2 * part.num_features for part in network.modules() if isinstance(part, nn.BatchNorm2d)
        )
        assert in_file == counts[name]
        kinds = [type(part) for part in network.modules()]
        assert (
            len(network.layers), kinds.count(nn.Conv2d), kinds.count(nn.MaxPool2d)
        ) == layers[name]  # fmt: skip
        assert network(torch.zeros(1, 3, 416, 416, device="meta")).shape == (1, 425, 13, 13)
        assert network.region is not None
        assert (len(network.region.anchors), network.region.classes) == (5, 80)
