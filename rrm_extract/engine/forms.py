"""Which kernel a convolution gets, and from which density on it runs dense."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rrm_extract.engine.plan import BLOCK, ConvStep, PlanTensor, Step, Window, readers_of
from rrm_extract.graph import Convolution, FullyConnected

__all__ = [
    "BREAK_EVEN",
    "Tiles",
    "as_convolution",
    "fits_bits",
    "form_of",
    "set_break_evens",
    "tiles_of",
    "window_of",
]

BREAK_EVEN = {
    "window": 0.80,
    "taps": 0.78,
    "taps bf16": 0.55,
    "tap bf16": 0.43,
    "whole taps": 0.10,
    "codes": 0.40,
    "columns": 0.62,
    "small columns": 0.3,
    "depthwise": 0.1,
    "xnor": 0.05,
    "narrow xnor": 0.025,
    "very narrow xnor": 0.004,
    "whole xnor": 0.022,
}
"""Densities at which the dense kernel takes over, fp32, see scripts/measure_break_even.py; of taps
where there are enough products, in bfloat16 for several and for one, see
scripts/break_even_in_networks.py.

A depthwise layer computes the same way either way: above its density, and where more than a fifth
of its pixels change, its input need not be compared with the one before.
"""

BF16_SHARE = 0.62
"""Of that in bfloat16, for windows and whole inputs: a unit is a pair of channels, of which one is
enough to be computed."""

BF16_APART = 32
"""Products, in bfloat16, in whose time an input is compared and listed; and in whose time a sum
that is kept is added to and finished, which a dense frame does in registers."""

SMALL_COLUMNS = 16
"""A first layer with a kernel of so few taps has less to win with an entry of a list."""

LARGEST_SUM = 2**15 - 1
"""Of a binary layer: its sums are kept in 16 bits."""

MOST_SUMS = 2**17 - 64
"""Outputs of a binary layer: where a row of its weights begins is a number of 32 bits."""

FEW_PRODUCTS = 24
ENOUGH_PRODUCTS = 384
"""Of a layer for each of its inputs: finding what has changed costs as much as so few of them, and
is hardly seen beside so many."""

FEWEST = 0.15
"""At least so much of a break-even is left: where less changes it is in few pixels, and nobody
looks at the others."""

SHARED = 0.6
"""At least so much of a break-even where others read the input too: dense frames may copy it."""

NARROW_SUMS = 256
VERY_NARROW_SUMS = 64
"""Outputs of a binary layer: what flips costs about as much for one as for 64 of them."""

WINOGRAD_BREAK_EVEN = {"fp32": 0.95, "bf16": 0.75}
"""The density of a layer that runs dense in Winograd's tiles, for each product these need."""

FIRST_BREAK_EVEN = {"fp32": 0.65, "bf16": 0.35}
"""Of a first layer: what has changed in the image is found first, which dense frames need not."""

WINOGRAD_MOST = 0.6
"""Where tiles take more products than this, per product of the direct sum, they do not pay."""

TILE_INPUTS = 6
"""Rows and columns of inputs of one of Winograd's tiles; each takes 36 products a channel."""

TILE_OUTPUTS = (4, 3)
"""Rows and columns of outputs that it may have: for kernels, or pieces of them, of 3 and 4."""

TURNED_TILE = 160
"""Products of one output in whose time a tile's are turned; few channels do not hide it."""


@dataclass(frozen=True)
class Tiles:
    """The tiles that a dense layer is computed in.

    Attributes:
        outputs: rows and columns of a tile.
        share: their products per product of the direct sum, 0.25 for 3 x 3 where tiles fit the map.
        halo: pixels around the input that they see.
    """

    outputs: int
    share: float
    halo: int


def tiles_of(form: str, window: Window, source: PlanTensor) -> Tiles | None:
    """Winograd's tiles for a layer; None where the direct sum takes about as few products."""
    if form == "columns":
        return _column_tiles(window, source)
    size = window.kernel[0]
    plain = window.stride == (1, 1) and window.dilation == (1, 1)
    if form not in ("window", "taps") or not plain or window.kernel != (size, size) or size < 3:
        return None
    best = min((_tiles(outputs, window, source) for outputs in TILE_OUTPUTS), key=lambda t: t.share)
    return None if best.share > WINOGRAD_MOST else best


def _column_tiles(window: Window, source: PlanTensor) -> Tiles | None:
    """Of a first layer: as one of stride 1 over pixels of stride x stride of the image's."""
    (size, across), (stride, sideways) = window.kernel, window.stride
    outputs = TILE_INPUTS + 1 + -size // stride
    square = size == across and stride == sideways
    if not square or outputs not in TILE_OUTPUTS or stride * source.channels > BLOCK:
        return None
    height, width = window.output(source.height, source.width)
    tiles = -(-height // outputs) * -(-width // outputs)
    products = tiles * (TILE_INPUTS**2 * stride**2 * source.channels + TURNED_TILE)
    share = products / (height * width * size**2 * source.channels)
    # The tiles are gathered, and the gathering knows where the image ends.
    return None if share > WINOGRAD_MOST else Tiles(outputs, share, halo=window.most_padding)


def _tiles(outputs: int, window: Window, source: PlanTensor) -> Tiles:
    taps = TILE_INPUTS + 1 - outputs
    pieces = -(-window.kernel[0] // taps)
    products, reach = pieces**2, 0
    for side, padding, pixels in zip(
        window.output(source.height, source.width),
        window.padding,
        (source.height, source.width),
        strict=True,
    ):
        count = -(-side // outputs)
        # Where they would hang over, the last ones are one output smaller: one position less.
        smaller = min(count, count * outputs - side)
        products *= TILE_INPUTS * count - smaller
        # Where the last piece of the last tile ends, beside where the frame does.
        last = outputs * (count - 1) - max(0, smaller - 1)
        reach = max(reach, last + taps * (pieces - 1) + TILE_INPUTS - padding - pixels)
    height, width = window.output(source.height, source.width)
    return Tiles(
        outputs=outputs,
        share=products / (height * width * window.kernel[0] ** 2),
        halo=max(reach, window.most_padding),
    )


def set_break_evens(steps: Sequence[Step], precision: str) -> None:
    """Sets :attr:`DeltaInput.break_even`, the lowest of what its layers need.

    Args:
        steps: of one part, after fusing: who else reads a layer's input is known then.
        precision: "fp32" or "bf16".
    """
    readers = readers_of(steps)
    layers: dict[int, list[ConvStep]] = {}
    for step in steps:
        if isinstance(step, ConvStep):
            layers.setdefault(id(step.delta), []).append(step)
    for group in layers.values():
        delta = group[0].delta
        shared = delta.source is not None and readers[delta.source] > 1
        of_taps = _bf16_taps(group) if precision == "bf16" else _fp32_taps(group, shared=shared)
        delta.break_even = min(_break_even(step, precision, of_taps) for step in group)


def _products(step: ConvStep) -> float:
    """Of a dense layer, for each of its inputs."""
    linear, window = step.linear, step.window
    outputs = linear.weight.shape[0] / linear.groups
    return outputs * math.prod(window.kernel) / math.prod(window.stride)


def _fp32_taps(group: Sequence[ConvStep], *, shared: bool) -> float:
    """Break-even of layers of taps that read one input; ``shared``: others do, too."""
    # What has changed is found once for all of them.
    products = sum(map(_products, group))
    share = math.log(products / FEW_PRODUCTS) / math.log(ENOUGH_PRODUCTS / FEW_PRODUCTS)
    share = min(max(share, FEWEST), 1.0)
    return BREAK_EVEN["taps"] * (max(share, SHARED) if shared else share)


def _bf16_taps(group: Sequence[ConvStep]) -> float:
    """The same in bfloat16, where dense frames copy nothing for others."""
    for_an_input = sum(map(_products, group))
    # Of an output of theirs, on average.
    strides = [math.prod(step.window.stride) for step in group]
    inputs = group[0].delta.shape[0]
    outputs = sum(
        step.linear.weight.shape[0] / stride for step, stride in zip(group, strides, strict=True)
    )
    for_an_output = for_an_input * inputs / outputs
    share = 1 - BF16_APART / for_an_input - BF16_APART / for_an_output
    form = "taps" if any(math.prod(step.window.kernel) > 1 for step in group) else "tap"
    return BREAK_EVEN[f"{form} bf16"] * max(share, FEWEST)


def _break_even(step: ConvStep, precision: str, of_taps: float) -> float:
    """Share of changed inputs above which a layer runs dense."""
    form, window = step.form, step.window
    outputs = step.linear.weight.shape[0]
    source = PlanTensor(*step.delta.shape, name="")
    # The first layer always computes in fp32.
    halved = precision == "bf16" and form in ("window", "taps")
    if form == "columns" and window.kernel[0] * window.kernel[1] <= SMALL_COLUMNS:
        form = "small columns"
    whole = window.output(source.height, source.width) == (1, 1)
    if form == "taps" and whole:
        form = "whole taps"  # as of a fully-connected layer: frames share a pass over the weights
    if form == "xnor":
        form = _xnor_of(whole, outputs)
    density = of_taps if form == "taps" else BREAK_EVEN[form] * (BF16_SHARE if halved else 1.0)
    tiles = tiles_of(step.form, window, source) if step.tile else None
    if tiles is None:
        return density
    in_tiles = FIRST_BREAK_EVEN if step.form == "columns" else WINOGRAD_BREAK_EVEN
    return min(density, in_tiles[precision] * tiles.share)


def _xnor_of(whole: bool, outputs: int) -> str:
    if whole:
        return "whole xnor"
    if outputs <= VERY_NARROW_SUMS:
        return "very narrow xnor"
    return "narrow xnor" if outputs < NARROW_SUMS else "xnor"


def fits_bits(linear: Convolution) -> bool:
    """Whether a layer of signs can run on bits: ungrouped, its sums within 16 bits."""
    sums_fit = linear.groups == 1 and linear.weight[0].numel() <= LARGEST_SUM
    return sums_fit and linear.weight.shape[0] <= MOST_SUMS


def window_of(linear: Convolution, source: PlanTensor) -> Window:
    """The geometry of a convolution over ``source``."""
    (above, below), (left, right) = linear.zeros((source.height, source.width))
    return Window(
        kernel=(linear.weight.shape[2], linear.weight.shape[3]),
        stride=(linear.stride[0], linear.stride[1]),
        padding=(above, left),
        dilation=(linear.dilation[0], linear.dilation[1]),
        behind=(below, right) if (below, right) != (above, left) else None,
    )


def form_of(linear: Convolution, window: Window, source: PlanTensor) -> str:
    """The kernel for a convolution: "window", "taps", "columns" or "depthwise"."""
    outputs = linear.weight.shape[0]
    if linear.groups > 1 and linear.groups == source.channels == outputs:
        return "depthwise"
    few = source.channels <= 4 and linear.groups == 1 and window.dilation == (1, 1)
    reached = -(-window.kernel[1] // window.stride[1])
    if few and reached <= 4 and source.height * source.channels < 1 << 16:
        return "columns"
    plain = window.stride == (1, 1) and window.dilation == (1, 1)
    even = window.behind is None
    if window.kernel == (3, 3) and plain and even and max(window.padding) <= 2:
        return "window"
    return "taps"


def as_convolution(linear: FullyConnected, kernel: tuple[int, int]) -> Convolution:
    """A fully-connected layer as a convolution over a whole input of the kernel's size."""
    outputs = linear.weight.shape[0]
    return Convolution(
        weight=linear.weight.reshape(outputs, -1, *kernel),
        bias=linear.bias,
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=1,
    )
