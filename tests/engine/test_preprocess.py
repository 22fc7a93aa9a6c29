"""The native transform: equal to torchvision's, on every path that this processor has."""

from __future__ import annotations

import pickle
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms.v2 import functional as F2

from rrm_extract.errors import PreprocessError
from rrm_extract.models import Preprocess, parse_preprocess

native = pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine.preprocess import NativeTransform, supports  # noqa: E402

ISAS: list[str] = native.available_isas()
FAST = [isa for isa in ISAS if isa != "reference"]
IMAGENET = parse_preprocess("imagenet")
BLACK_AND_WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

TORCH = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
# Elsewhere torchvision's v2 resizes uint8 in float32, too.
TORCH_HAS_FIXED = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
# Builds whose compiler is known to have ordered the sums as AxisWeights says.
TORCH_IS_KNOWN = TORCH_HAS_FIXED and (2, 13) <= TORCH <= (2, 15)


def fused(isa: str) -> bool:
    """Whether this path rounds a product and its sum once, as the best path here does."""
    return isa != "portable" or platform.machine() in ("aarch64", "arm64") or FAST == ["portable"]


def assert_same(
    actual: NDArray[Any], expected: NDArray[Any], *, exact: bool, level: float = 1.0
) -> None:
    """Equal to the bit; where sums may be rounded otherwise, but for one level in few pixels.

    Args:
        actual: any shape.
        expected: the same shape.
        exact: whether there is no tolerance.
        level: the difference that one level makes, at most.
    """
    assert actual.shape == expected.shape
    if exact:
        np.testing.assert_array_equal(actual, expected)
        return
    difference = np.abs(actual.astype(np.float64) - expected)
    assert difference.max() <= level * 1.001
    if actual.size > 10_000:  # in a small picture many pixels may lie halfway between levels
        assert (difference > 0).mean() < 0.05


def pixels(height: int, width: int, *, harsh: bool = False) -> NDArray[np.uint8]:
    """(height, width, 3) of noise; harsh: black or white only, which makes bicubic overshoot."""
    noise = np.random.default_rng(height * 4096 + width).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    return np.where(noise > 127, 255, 0).astype(np.uint8) if harsh else noise


def preprocessor(**changes: Any) -> Any:
    mean, std = BLACK_AND_WHITE
    wanted = {
        "source": (6, 8),
        "resize": (9, 12),
        "offset": (1, 2),
        "crop": (5, 7),
        "mean": mean,
        "std": std,
        "scale": 255,
    }
    return native.Preprocessor(**(wanted | changes))


def levels(image: NDArray[np.uint8], **settings: Any) -> NDArray[np.float32]:
    """(3, h, w): the resized and cropped picture, in levels."""
    height, width = settings["crop"]
    out = np.empty((1, 3, height, width), np.float32)
    preprocessor(source=image.shape[:2], **settings).run([image], out)
    return out[0]


@st.composite
def resizes(draw: st.DrawFn) -> dict[str, Any]:
    """A picture's size, the resize and a crop inside it."""
    # Not to width 1: torch's float32 interpolate then repeats the first row (torch 2.15).
    resize = draw(st.tuples(st.integers(1, 120), st.integers(2, 120)))
    crop = tuple(draw(st.integers(1, size)) for size in resize)
    offset = tuple(
        draw(st.integers(0, size - part)) for size, part in zip(resize, crop, strict=True)
    )
    return {
        "source": draw(st.tuples(st.integers(1, 200), st.integers(1, 200))),
        "resize": resize,
        "crop": crop,
        "offset": offset,
        "interpolation": draw(st.sampled_from(["bilinear", "bicubic"])),
        "harsh": draw(st.booleans()),
    }


def case(
    source: tuple[int, int], resize: tuple[int, int], offset: tuple[int, int], crop: tuple[int, int]
) -> dict[str, Any]:
    return {
        "source": source,
        "resize": resize,
        "offset": offset,
        "crop": crop,
        "interpolation": "bicubic",
        "harsh": True,
    }


# Windows that lose their zeros out of order, and one that reaches beyond the source.
OUT_OF_ORDER = case((15, 357), (123, 15), (20, 10), (74, 4))
NARROW = case((45, 126), (22, 210), (19, 22), (2, 155))
HALVED = case((64, 96), (32, 48), (0, 0), (32, 48))
UNCHANGED = case((33, 31), (33, 31), (1, 2), (20, 29))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("arithmetic", "torchvision"), [("float", F), ("fixed", F2)])
@settings(max_examples=80, deadline=None, derandomize=True)
@given(what=resizes())
@example(what=OUT_OF_ORDER)
@example(what=NARROW)
@example(what=HALVED)
@example(what=UNCHANGED)
def test_resize_equals_torchvision(
    isa: str, arithmetic: str, torchvision: Any, what: dict[str, Any]
) -> None:
    if arithmetic == "fixed" and not TORCH_HAS_FIXED:
        pytest.skip("this torch has no fixed-point resize")
    wanted = dict(what)
    image = pixels(*wanted.pop("source"), harsh=wanted.pop("harsh"))
    whole = torchvision.resize(
        torch.from_numpy(image).permute(2, 0, 1),
        list(wanted["resize"]),
        interpolation=InterpolationMode(wanted["interpolation"]),
        antialias=True,
    )
    (top, left), (height, width) = wanted["offset"], wanted["crop"]
    expected = whole[:, top : top + height, left : left + width].numpy()
    actual = levels(image, arithmetic=arithmetic, isa=isa, **wanted)
    assert_same(actual, expected, exact=arithmetic == "fixed" or (TORCH_IS_KNOWN and fused(isa)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(what=resizes())
def test_float_and_fixed_differ_by_one_level_at_most(what: dict[str, Any]) -> None:
    wanted = what | {"interpolation": "bilinear"}
    image = pixels(*wanted.pop("source"), harsh=wanted.pop("harsh"))
    difference = levels(image, **wanted) - levels(image, arithmetic="fixed", **wanted)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
@pytest.mark.parametrize("isa", FAST)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    what=resizes(),
    shift=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    channels=st.sampled_from(["rgb", "bgr"]),
    scale=st.sampled_from([1, 255]),
)
def test_every_path_equals_the_reference(
    isa: str,
    arithmetic: str,
    what: dict[str, Any],
    shift: tuple[int, int],
    channels: str,
    scale: int,
) -> None:
    wanted = dict(what)
    image = pixels(*wanted.pop("source"), harsh=wanted.pop("harsh"))
    # Shifted and larger by two: mostly with a border, and some pixel of the frame.
    wanted["crop"] = tuple(size + 2 for size in wanted["crop"])
    wanted["offset"] = tuple(
        max(-size + 1, min(place + by, resized - 1))
        for size, place, by, resized in zip(
            wanted["crop"], wanted["offset"], shift, wanted["resize"], strict=True
        )
    )
    wanted |= {
        "arithmetic": arithmetic,
        "channels": channels,
        "scale": scale,
        "mean": IMAGENET.mean,
        "std": IMAGENET.std,
    }
    assert_same(
        levels(image, isa=isa, **wanted),
        levels(image, isa="reference", **wanted),
        exact=arithmetic == "fixed" or fused(isa),
        level=1 / min(IMAGENET.std) / (255 if scale == 1 else 1),
    )


NUMBERS = st.floats(-300, 300, width=32)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    mean=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    std=st.tuples(*[st.floats(0.001953125, 300, width=32)] * 3),
    scale=st.sampled_from([1, 255]),
)
@example(mean=(0.0, 0.0, 0.0), std=(1e-39, 1e-45, 1.0), scale=1)  # 1 / std is infinite
def test_every_level_is_normalised_to_the_bit(
    isa: str,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    scale: int,
) -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    levels_ = torch.from_numpy(image.transpose(2, 0, 1).copy())
    expected = F.normalize(
        F.convert_image_dtype(levels_) if scale == 1 else levels_.float(), list(mean), list(std)
    )
    actual = levels(
        image, resize=(16, 16), offset=(0, 0), crop=(16, 16), mean=mean, std=std, scale=scale,
        isa=isa,
    )  # fmt: skip
    np.testing.assert_array_equal(actual, expected.numpy())


def frames(count: int, height: int, width: int) -> Tensor:
    """(count, 3, height, width), in a decoder's order in memory."""
    stack = np.stack([np.roll(pixels(height, width), shift, axis=0) for shift in range(count)])
    return torch.from_numpy(stack).permute(0, 3, 1, 2)


TRANSFORMS = {
    "imagenet": IMAGENET,
    "bicubic": replace(IMAGENET, interpolation="bicubic", resize=60, crop=(48, 52)),
    "bgr": parse_preprocess(
        "resize=64,crop=57,scale=255,channels=bgr,mean=104/117/123,std=1/1.5/2"
    ),
    "border": replace(IMAGENET, resize=40, crop=(33, 81)),
    "same": replace(IMAGENET, resize=90, crop=(90, 90)),
}
SIZES = {
    "landscape": (120, 160),
    "portrait": (160, 90),
    "tiny": (5, 4),
    "square": (224, 224),
    "odd": (241, 333),
    "row": (1, 17),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transform_equals_the_models_own(transform: Preprocess, size: tuple[int, int]) -> None:
    x = frames(2, *size)
    actual = NativeTransform(transform)(x)
    assert actual.dtype == torch.float32
    assert actual.is_contiguous()
    level = 1 / min(transform.std) / (255 if transform.scale == 1 else 1)
    assert_same(actual.numpy(), transform(x).numpy(), exact=TORCH_IS_KNOWN, level=level)


def test_transform_equals_the_models_own_at_1080p() -> None:
    x = frames(1, 1080, 1920)
    actual, expected = NativeTransform(IMAGENET)(x), IMAGENET(x)
    assert_same(actual.numpy(), expected.numpy(), exact=TORCH_IS_KNOWN, level=0.0181)


def test_order_in_memory_does_not_matter() -> None:
    transform, x = NativeTransform(IMAGENET), frames(2, 97, 131)
    expected = transform(x)
    assert torch.equal(transform(x.contiguous()), expected)
    assert torch.equal(transform(x.permute(0, 2, 3, 1)), expected)
    assert torch.equal(transform(x.flip(3).flip(3)), expected)
    assert torch.equal(torch.cat([transform(frame[None]) for frame in x]), expected)
    assert transform(x[:0]).shape == (0, 3, 224, 224)


def test_images_of_several_sizes() -> None:
    transform = NativeTransform(IMAGENET)
    images = [pixels(90, 120), pixels(90, 120), pixels(70, 50), pixels(90, 120)[::-1]]
    images[0].flags.writeable = False
    expected = [
        transform(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]) for image in images
    ]
    assert torch.equal(transform.images(images), torch.cat(expected))
    assert transform.images([]).shape == (0, 3, 224, 224)


def test_images_of_another_type_fails() -> None:
    with pytest.raises(PreprocessError, match=r"float32 \(4, 5, 3\); expected uint8 \(H, W, 3\)"):
        NativeTransform(IMAGENET).images([np.zeros((4, 5, 3), np.float32)])  # type: ignore[list-item]
    with pytest.raises(PreprocessError, match=r"uint8 \(4, 5\); expected"):
        NativeTransform(IMAGENET).images([np.zeros((4, 5), np.uint8)])


@pytest.mark.parametrize(
    "x",
    [torch.zeros(2, 3, 4, 5), torch.zeros(3, 4, 5, dtype=torch.uint8),
     torch.zeros(2, 4, 5, 6, dtype=torch.uint8)],
    ids=["float", "one frame", "channels"],
)  # fmt: skip
def test_frames_of_another_type_fails(x: Tensor) -> None:
    with pytest.raises(PreprocessError, match=r"expected uint8 \(T, 3, H, W\) or \(T, H, W, 3\)"):
        NativeTransform(IMAGENET)(x)


def test_frames_without_pixels_fails() -> None:
    with pytest.raises(PreprocessError, match="the frame is 0x5 pixels; expected"):
        NativeTransform(IMAGENET)(torch.zeros(1, 3, 0, 5, dtype=torch.uint8))


def test_a_new_size_after_many() -> None:
    transform = NativeTransform(replace(IMAGENET, resize=8, crop=(8, 8)))
    first = transform(frames(1, 9, 9))
    for size in range(10, 40):
        transform(frames(1, 9, size))
    assert torch.equal(transform(frames(1, 9, 9)), first)


def test_supports() -> None:
    assert supports(IMAGENET)
    assert supports(replace(IMAGENET, interpolation="bicubic", channels="bgr", scale=255))


@pytest.mark.parametrize(
    "other",
    [replace(IMAGENET, layout="nhwc"), replace(IMAGENET, antialias=False), lambda x: x],
    ids=["nhwc", "antialias", "function"],
)
def test_supports_fails(other: Any) -> None:
    assert not supports(other)
    with pytest.raises(PreprocessError, match="has no native form"):
        NativeTransform(other)


def test_survives_pickling() -> None:
    transform, x = NativeTransform(IMAGENET), frames(1, 30, 40)
    expected = transform(x)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(x), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_the_path_asked_for_is_the_one_that_runs(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "avx512" if isa.startswith("avx512") else isa
    assert preprocessor(isa=isa).isa == expected
    monkeypatch.setenv("RRM_ISA", isa)
    transform = NativeTransform(IMAGENET)
    assert transform.isa == isa
    assert_same(
        transform(frames(1, 60, 80)).numpy(),
        IMAGENET(frames(1, 60, 80)).numpy(),
        exact=TORCH_IS_KNOWN and fused(isa),
        level=0.0181,
    )


def test_the_best_path_runs_unasked() -> None:
    assert preprocessor().isa == preprocessor(isa=ISAS[-1]).isa


def test_threads_may_share_one() -> None:
    transform, x = NativeTransform(IMAGENET), frames(4, 97, 131)
    expected = transform(x)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(transform, [x] * 12):
            assert torch.equal(result, expected)


def test_array_and_list_are_the_same() -> None:
    images = np.stack([pixels(6, 8), pixels(6, 8)[::-1]])
    one, other = np.empty((2, 2, 3, 5, 7), np.float32)
    preprocessor().run(images, one)
    preprocessor().run(list(images), other)
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one[0], one[1])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "source": ({"source": (0, 8)}, "the frame is 0x8 pixels; expected height x width, each from 1"),
    "resize": ({"resize": (9, -1)}, "the resized frame is 9x-1 pixels"),
    "huge": ({"resize": (9, 1 << 25)}, "the resized frame is 9x33554432 pixels; .* 1 to 16777216"),
    "crop": ({"crop": (5, 0)}, "the crop is 5x0 pixels"),
    "far": ({"offset": (1, -(1 << 31))}, "the crop begins at row 1, column -2147483648; expected"),
    "outside": ({"offset": (9, 0)}, "crop of 5x7 at row 9, column 0 has no pixel of the resized"),
    "before": ({"offset": (0, -7)}, "crop of 5x7 at row 0, column -7 has no pixel of the resized"),
    "std": ({"std": (1.0, 0.0, 1.0)}, "std 0.0* of channel 1 cannot be used; expected finite"),
    "mean": ({"mean": (0.0, 0.0, float("nan"))}, "mean -?nan and .* of channel 2 cannot be used"),
    "scale": ({"scale": 2}, "scale is 2; expected 1 or 255"),
    "interpolation": ({"interpolation": "nearest"}, "interpolation is 'nearest'; expected 'bilin"),
    "arithmetic": ({"arithmetic": "double"}, "arithmetic is 'double'; expected 'float' or 'fixed'"),
    "channels": ({"channels": "gbr"}, "channels is 'gbr'; expected 'rgb' or 'bgr'"),
    "isa": ({"isa": "mmx"}, "isa is 'mmx'; expected auto or one that this processor has: ref"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_impossible_settings_fails(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        preprocessor(**changes)
    assert "\n" not in str(caught.value)


def test_other_shapes_fails() -> None:
    out = np.empty((1, 3, 5, 7), np.float32)
    with pytest.raises(ValueError, match=r"frames are \(6, 9, 3\); expected \(6, 8, 3\)"):
        preprocessor().run([pixels(6, 9)], out)
    with pytest.raises(ValueError, match=r"frames are \(1, 8, 6, 3\); expected \(T, 6, 8, 3\)"):
        preprocessor().run(pixels(8, 6)[None], out)
    with pytest.raises(ValueError, match=r"out is \(1, 3, 5, 7\); expected \(2, 3, 5, 7\)"):
        preprocessor().run([pixels(6, 8)] * 2, out)


def test_other_types_fails() -> None:
    out = np.empty((1, 3, 5, 7), np.float32)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        preprocessor().run([pixels(6, 8).astype(np.float32)], out)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        preprocessor().run([pixels(6, 8)], out.astype(np.float64))
    with pytest.raises(TypeError, match="incompatible function arguments"):
        preprocessor().run([pixels(6, 8)], out.transpose(0, 1, 3, 2))
