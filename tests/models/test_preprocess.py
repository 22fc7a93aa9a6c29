"""The transform: equal to torchvision's to the bit, and strict about its description."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import models
from torchvision.transforms import functional as F

from rrm_extract.errors import PreprocessError
from rrm_extract.models import Preprocess, list_models, load_model, parse_preprocess
from rrm_extract.models.preset import from_preset

SIZES = {
    "landscape": (120, 160),
    "portrait": (160, 90),
    "tiny": (20, 30),
    "square": (224, 224),
    "odd": (241, 333),
}
# resize and crop differ, bicubic, other mean and std, resize == crop, another size.
PRESETS = ["resnet18", "resnet50", "efficientnet_b0", "efficientnet_v2_l", "inception_v3"]
INLINE = "resize=256,crop=224,scale=255,channels=bgr,mean=104/117/123,std=1/1/1,layout=nhwc"


def frames(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", PRESETS)
def test_equals_torchvisions_preset_bit_for_bit(name: str, size: tuple[int, int]) -> None:
    preset = models.get_model_weights(name).DEFAULT.transforms()
    x = frames(2, *size)
    expected = torch.stack([preset(frame) for frame in x])
    actual = from_preset(preset)(x)
    assert actual.dtype == torch.float32
    assert actual.is_contiguous()
    assert torch.equal(actual, expected)


def test_equals_torchvisions_preset_at_1080p() -> None:
    preset = models.get_model_weights("resnet18").DEFAULT.transforms()
    x = frames(1, 1080, 1920)
    assert torch.equal(from_preset(preset)(x)[0], preset(x[0]))


def test_memory_order_of_the_frames_does_not_matter() -> None:
    transform = parse_preprocess("imagenet")
    x = frames(2, 120, 160)
    decoded = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert decoded.stride() != x.stride()
    assert torch.equal(transform(decoded), transform(x))


def test_every_preset_of_torchvision_is_understood() -> None:
    for entry in [entry for entry in list_models() if entry.source == "torchvision"]:
        for weights in models.get_model_weights(entry.name):
            preset = weights.transforms()
            assert from_preset(preset).crop == (preset.crop_size[0], preset.crop_size[0])


def test_other_preset_fails() -> None:
    preset = models.detection.SSD300_VGG16_Weights.DEFAULT.transforms()
    with pytest.raises(PreprocessError, match="ObjectDetection, expected torchvision's"):
        from_preset(preset)


def test_batch_equals_frame_by_frame() -> None:
    transform = parse_preprocess("imagenet")
    x = frames(5, 97, 131)
    assert torch.equal(transform(x), torch.cat([transform(x[i : i + 1]) for i in range(5)]))
    assert transform(x[:0]).shape == (0, 3, 224, 224)


def test_scale_channels_and_layout() -> None:
    x = frames(2, 300, 280)
    resized = F.center_crop(F.resize(x, [256], antialias=True), [224, 224]).float()
    expected = resized.flip(1) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    transform = parse_preprocess(INLINE)
    assert transform.output_shape == (224, 224, 3)
    assert torch.equal(transform(x), expected.permute(0, 2, 3, 1))


def test_rectangular_crop_and_antialias_off() -> None:
    transform = parse_preprocess(
        "resize=100,crop=90/120,mean=0/0/0,std=1/1/1,antialias=false,interpolation=bicubic"
    )
    assert (transform.crop, transform.antialias) == ((90, 120), False)
    sharp = parse_preprocess({**transform.describe(), "antialias": True})
    x = frames(1, 240, 320)
    assert transform(x).shape == (1, 3, 90, 120)
    assert not torch.equal(transform(x), sharp(x))


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
def test_reads_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"input{suffix}"
    path.write_text(json.dumps(parse_preprocess(INLINE).describe()))
    assert parse_preprocess(str(path)) == parse_preprocess(INLINE)


def test_description_is_complete_and_survives_json() -> None:
    transform = parse_preprocess(INLINE)
    description = json.loads(json.dumps(transform.describe()))
    assert parse_preprocess(description) == transform
    assert set(description) == set(Preprocess.__dataclass_fields__)


def test_pickles() -> None:
    transform = parse_preprocess(INLINE)
    again = pickle.loads(pickle.dumps(transform))
    x = frames(1, 50, 60)
    assert again == transform
    assert torch.equal(again(x), transform(x))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("imagnet", "neither 'imagenet'"),
        ("resize=256,crop", "'crop' is not key=value"),
        ("resize=256,resize=256", "'resize' is given twice"),
        ("resize=256,crop=224", "mean, std missing"),
        ({"resize": 256, "crop": 224, "scale": 255}, "mean, std missing"),
        (INLINE + ",croop=224", "unknown key 'croop'; did you mean 'crop'?"),
        (INLINE + ",zzz=1", "unknown key 'zzz'; known: resize, crop"),
        (INLINE.replace("bgr", "gbr"), "channels is 'gbr'; expected rgb or bgr"),
        (INLINE.replace("scale=255", "scale=2"), "scale is 2; expected 1 or 255"),
        (INLINE.replace("104/117/123", "104/117"), "mean is .*; expected three numbers"),
        (INLINE.replace("std=1/1/1", "std=1/0/1"), "three numbers above 0"),
        (INLINE.replace("std=1/1/1", "std=1/nan/1"), "expected three numbers"),
        (INLINE.replace("crop=224", "crop=1/2/3"), "expected one number or"),
        (INLINE.replace("crop=224", "crop=257"), "larger than resize 256"),
        (INLINE.replace("resize=256", "resize=-1"), "whole number of pixels above 0"),
        (INLINE.replace("resize=256", "resize=256.0"), "whole number of pixels above 0"),
        (INLINE + ",antialias=1", "antialias is 1; expected true or false"),
        ("nothing.yaml", "cannot read preprocess file 'nothing.yaml'"),
    ],
)
def test_description_fails(spec: str | dict[str, object], message: str) -> None:
    with pytest.raises(PreprocessError, match=message):
        parse_preprocess(spec)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "resize: [\n", ""])
def test_file_fails(tmp_path: Path, text: str) -> None:
    path = tmp_path / "input.yaml"
    path.write_text(text)
    with pytest.raises(PreprocessError, match=r"preprocess file .*input\.yaml"):
        parse_preprocess(str(path))


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(1, 3, 8, 8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 8, 8, 3, dtype=torch.uint8),
    ],
    ids=["float", "one frame", "NHWC"],
)
def test_frames_fail(bad: Tensor) -> None:
    with pytest.raises(PreprocessError, match=r"expected uint8 \(T, 3, H, W\)"):
        parse_preprocess("imagenet")(bad)


def test_given_description_replaces_the_models_own() -> None:
    loaded = load_model("squeezenet1_1", weights="random:0", preprocess=INLINE)
    assert loaded.preprocess == parse_preprocess(INLINE).describe()
    assert loaded.input_shape == (224, 224, 3)


def test_an_array_is_no_tensor() -> None:
    frames = np.zeros((2, 3, 8, 8), np.uint8)
    with pytest.raises(PreprocessError, match=r"ndarray; expected a torch.Tensor"):
        parse_preprocess("resize=4,crop=4,mean=0/0/0,std=1/1/1")(frames)  # type: ignore[arg-type]


def test_a_file_is_read_as_a_job_file_is(tmp_path: Path) -> None:
    path = tmp_path / "input.yaml"
    path.write_text("resize: 32\ncrop: 32\nmean: [0, 0, 0]\nstd: [1e-2, 1e-2, 1e-2]\n")
    assert parse_preprocess(str(path)).std == (0.01, 0.01, 0.01)
    path.write_text("resize: 32\nresize: 48\ncrop: 32\nmean: [0, 0, 0]\nstd: [1, 1, 1]\n")
    with pytest.raises(PreprocessError, match=r"input\.yaml"):
        parse_preprocess(str(path))
