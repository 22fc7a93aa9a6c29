"""From the sections of a .cfg file to a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from ...errors import ModelError
from ..region import Region
from .blocks import (
    ACTIVATIONS,
    Reorg,
    Route,
    Shortcut,
    Upsample,
    convolution,
    max_pool,
    pooled,
)
from .cfg import Section
from .network import DarknetNetwork, Shape
from .options import Options

__all__ = ["build_network", "input_size"]

_MAX_SIDE = 1 << 14
"""Pixels of an input's side; a slip of the pen would ask for more memory than there is."""

_MAX_PARAMETERS = 1 << 31
"""8 GiB of weights; asking for more is a slip of the pen as well."""

_MAX_VALUES = 1 << 31
"""Numbers in one layer's output, for the same reason."""


def input_size(sections: Sequence[Section]) -> tuple[int, int]:
    """(h, w) that [net] asks for.

    Raises:
        ModelError: it is missing or impossible, or the input has other than three channels.
    """
    net = Options(sections[0])
    height = net.whole("height", None, least=1, most=_MAX_SIDE)
    width = net.whole("width", None, least=1, most=_MAX_SIDE)
    if net.whole("channels", 3) != 3:
        raise net.refusal("channels", "expected 3, for frames are RGB")
    # What else [net] says is about training.
    return height, width


def build_network(sections: Sequence[Section], *, size: tuple[int, int]) -> DarknetNetwork:
    """Make the network that the sections describe, its weights drawn as Darknet draws them.

    Every layer's output has about the size of its input: weights have the variance 2 / fan-in,
    batch normalisation does nothing yet.

    Args:
        sections: of a .cfg file.
        size: (h, w) of the network's input, instead of what [net] says.

    Raises:
        ModelError: a section or an option is unknown or impossible; a layer does not fit what it
            reads; there are too many parameters.
    """
    input_size(sections)
    # On torch's meta device nothing is allocated.
    with torch.device("meta"):
        parameters = sum(p.numel() for p in _Builder(sections, size).build().parameters())
    if parameters > _MAX_PARAMETERS:
        raise ModelError(
            f"{sections[0].file}: {parameters:,} parameters; expected at most {_MAX_PARAMETERS:,}"
        )
    network = _Builder(sections, size).build()
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.normal_(std=math.sqrt(2 / part.weight[0].numel()))
                if part.bias is not None:
                    part.bias.zero_()
    return network


class _Builder:
    def __init__(self, sections: Sequence[Section], size: tuple[int, int]) -> None:
        self.sections = sections[1:]
        self.input: Shape = (3, *size)
        self.file = sections[0].file
        self.layers: list[nn.Module] = []
        self.sources: list[tuple[int, ...]] = []
        self.shapes: list[Shape] = []
        self.region: Region | None = None

    def build(self) -> DarknetNetwork:
        for number, section in enumerate(self.sections):
            if section.kind == "region":
                if number != len(self.sections) - 1:
                    raise ModelError(f"{section.where}: [region] is not the last section")
                self.region = self._region(section)
                break
            build = _LAYERS.get(section.kind)
            if build is None:
                known = ", ".join([*_LAYERS, "region"])
                raise ModelError(
                    f"{section.where}: section [{section.kind}] is not supported; known are {known}"
                )
            shape = build(self, section)
            if math.prod(shape) > _MAX_VALUES:
                raise ModelError(
                    f"{section.where}: [{section.kind}] would give {_dims(shape)} numbers; "
                    f"expected at most {_MAX_VALUES:,}"
                )
            self.shapes.append(shape)
        if not self.layers:
            raise ModelError(
                f"{self.file} has no layers; expected sections such as [convolutional]"
            )
        return DarknetNetwork(self.layers, self.sources, input_shape=self.input, region=self.region)

    @property
    def shape(self) -> Shape:
        """(C, h, w) of the layer before."""
        return self.shapes[-1] if self.shapes else self.input

    def _add(self, layer: nn.Module, *sources: int) -> None:
        self.layers.append(layer)
        self.sources.append(sources or (len(self.layers) - 2,))

    # One method for each kind of section: adds the layer, gives the shape of its output.

    def _convolutional(self, section: Section) -> Shape:
        options = Options(
            section,
            neutral={
                **dict.fromkeys(
                    ("binary", "dontload", "dontloadscales", "flipped", "numload"), ("0",)
                ),
                **dict.fromkeys(("antialiasing", "cbn", "xnor", "bin_output"), ("0",)),
                "dilation": ("1",),
            },
            ignored=("dot",),
        )
        channels, height, width = self.shape
        outputs = options.whole("filters", 1, least=1)
        size = options.whole("size", 1, least=1)
        stride = options.whole("stride", 1, least=1)
        padding = options.whole("padding", 0)
        if options.whole("pad", 0):
            padding = size // 2
        groups = options.whole("groups", 1, least=1)
        normalise = options.whole("batch_normalize", 0, most=1) == 1
        # Darknet's own default is the logistic function, OpenCV's is none: it has to be said.
        act = self._activation(options, None)
        options.finish()
        if channels % groups or outputs % groups:
            raise options.refusal(
                "groups", f"expected a divisor of {channels} inputs and {outputs} filters"
            )
        shape = (
            outputs,
            pooled(height, size=size, stride=stride, padding=2 * padding),
            pooled(width, size=size, stride=stride, padding=2 * padding),
        )
        self._check(options, "size", shape, (height + 2 * padding, width + 2 * padding), size)
        weights = outputs * (channels // groups) * size * size
        if weights > _MAX_PARAMETERS:  # PyTorch cannot even count many more
            raise options.refusal(
                "filters", f"{weights:,} weights; expected at most {_MAX_PARAMETERS:,}"
            )
        self._add(
            convolution(
                channels,
                outputs,
                size=size,
                stride=stride,
                padding=padding,
                groups=groups,
                normalise=normalise,
                act=act,
            )
        )
        return shape

    def _maxpool(self, section: Section) -> Shape:
        options = Options(
            section,
            neutral={"antialiasing": ("0",), "maxpool_depth": ("0",), "out_channels": ("1",)},
        )
        channels, height, width = self.shape
        stride = options.whole("stride", 1, least=1)
        size = options.whole("size", stride, least=1)
        padding = options.whole("padding", size - 1)
        options.finish()
        if padding > 2 * (size - 1):
            raise options.refusal("padding", f"expected at most {2 * (size - 1)} with size {size}")
        shape = (
            channels,
            pooled(height, size=size, stride=stride, padding=padding),
            pooled(width, size=size, stride=stride, padding=padding),
        )
        self._check(options, "size", shape, (height + padding, width + padding), size)
        self._add(max_pool(height, width, size=size, stride=stride, padding=padding))
        return shape

    def _check(
        self, options: Options, name: str, shape: Shape, padded: tuple[int, int], size: int
    ) -> None:
        if min(padded) < size:
            raise options.refusal(
                name, f"larger than its input, {_dims(self.shape)}; give a larger network input"
            )

    def _avgpool(self, section: Section) -> Shape:
        Options(section).finish()
        self._add(nn.AdaptiveAvgPool2d(1))
        return self.shape[0], 1, 1

    def _upsample(self, section: Section) -> Shape:
        options = Options(section)
        channels, height, width = self.shape
        stride = options.whole("stride", 2, least=1, most=64)
        scale = options.real("scale", 1)
        options.finish()
        self._add(Upsample(stride, scale))
        return channels, height * stride, width * stride

    def _reorg(self, section: Section) -> Shape:
        options = Options(section, neutral=dict.fromkeys(("reverse", "flatten", "extra"), ("0",)))
        channels, height, width = self.shape
        stride = options.whole("stride", 1, least=1)
        options.finish()
        if channels % (stride * stride) or height % stride or width % stride:
            raise options.refusal(
                "stride",
                f"its input is {_dims(self.shape)}; expected rows and columns in multiples of "
                f"{stride} and channels in multiples of {stride * stride} (give YOLOv2 an input "
                "whose sides are multiples of 32)",
            )
        self._add(Reorg(channels, height, width, stride))
        return channels * stride * stride, height // stride, width // stride

    def _route(self, section: Section) -> Shape:
        options = Options(section, neutral={"groups": ("1",), "group_id": ("0",)})
        numbers = options.wholes("layers")
        options.finish()
        sources = tuple(self._number(options, "layers", number) for number in numbers)
        shapes = [self.shapes[source] for source in sources]
        if len({shape[1:] for shape in shapes}) > 1:
            sizes = " and ".join(_dims(shape) for shape in shapes)
            raise options.refusal("layers", f"expected maps of one size, got {sizes}")
        self._add(Route() if len(sources) > 1 else nn.Identity(), *sources)
        return sum(shape[0] for shape in shapes), *shapes[0][1:]

    def _shortcut(self, section: Section) -> Shape:
        options = Options(
            section, neutral={"weights_type": ("none",), "weights_normalization": ("none",)}
        )
        numbers = options.wholes("from")
        alpha, beta = options.real("alpha", 1), options.real("beta", 1)
        act = self._activation(options, "linear")
        options.finish()
        if len(numbers) != 1 or not self.layers:
            raise options.refusal("from", "expected one earlier layer, and one before this")
        source = self._number(options, "from", numbers[0])
        channels, others = self.shape, self.shapes[source]
        stride = max(others[1] // channels[1], 1)
        if tuple(side * stride for side in channels[1:]) != others[1:]:
            raise options.refusal(
                "from",
                "expected maps of one size, or an earlier one that is a whole number of times as "
                f"large, got {_dims(channels)} and {_dims(others)}",
            )
        layer = Shortcut(channels[0], others[0], stride=stride, alpha=alpha, beta=beta, act=act)
        self._add(layer, len(self.layers) - 1, source)
        return channels

    def _region(self, section: Section) -> Region:
        options = Options(
            section,
            neutral={"background": ("0",), "classfix": ("0", "1"), "coords": ("4",)},
            ignored=(
                *("absolute", "bias_match", "class_scale", "coord_scale", "jitter", "log"),
                *("mask_scale", "max", "noobject_scale", "object_scale", "random", "rescore"),
                *("sqrt", "thresh"),
            ),
        )
        count = options.whole("num", 1, least=1)
        region = Region(
            anchors=_pairs(options.reals("anchors", 2 * count)),
            classes=options.whole("classes", 20, least=1),
            softmax=options.whole("softmax", 0, most=1) == 1,
        )
        options.finish()
        if min(side for anchor in region.anchors for side in anchor) <= 0:
            raise options.refusal("anchors", "expected numbers above 0")
        if self.shape[0] != region.channels:
            raise ModelError(
                f"{section.where}: [region] needs {count} x (5 + {region.classes}) = "
                f"{region.channels} channels; the layer before has {self.shape[0]}"
            )
        return region

    def _activation(self, options: Options, default: str | None) -> str:
        name = options.text("activation", default)
        if name not in ACTIVATIONS:
            raise options.refusal("activation", f"expected one of {', '.join(ACTIVATIONS)}")
        return name

    def _number(self, options: Options, name: str, number: int) -> int:
        """The layer of that number; negative ones count back from this."""
        here = len(self.layers)
        found = here + number if number < 0 else number
        if not 0 <= found < here:
            raise options.refusal(
                name, f"layer {number} does not come before this one, which is layer {here}"
            )
        return found


_LAYERS: dict[str, Callable[[_Builder, Section], Shape]] = {
    "convolutional": _Builder._convolutional,
    "conv": _Builder._convolutional,
    "maxpool": _Builder._maxpool,
    "max": _Builder._maxpool,
    "avgpool": _Builder._avgpool,
    "avg": _Builder._avgpool,
    "upsample": _Builder._upsample,
    "reorg": _Builder._reorg,
    "route": _Builder._route,
    "shortcut": _Builder._shortcut,
}


def _pairs(values: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(values[::2], values[1::2], strict=True))


def _dims(shape: Shape) -> str:
    return "x".join(map(str, shape))
