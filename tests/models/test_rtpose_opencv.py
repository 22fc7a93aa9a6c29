"""OpenPose's network beside OpenCV, which reads the same Caffe files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rrm_extract.models import load_model
from tests.models.caffe import arrays, caffemodel, lively, rtpose_prototxt

TOLERANCE = 1e-4
"""Of outputs of order one."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    file = tmp_path_factory.mktemp("rtpose") / "pose.caffemodel"
    file.write_bytes(caffemodel(arrays(lively())))
    yield file
    file.unlink()  # 200 MB, which pytest would keep


@pytest.mark.parametrize(("height", "width"), [(96, 128), (184, 104)])
def test_raw_output(height: int, width: int, weights: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip(f"OpenCV {cv2.__version__} reads no Caffe files")
    prototxt = weights.with_suffix(".prototxt")
    prototxt.write_text(rtpose_prototxt(height, width))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = (250, 30, 120)
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
    # In BGR, as OpenCV's own example for this network has it, but with the published arithmetic.
    net.setInput(cv2.dnn.blobFromImage(image, 1 / 256, (width, height), (128, 128, 128)))
    expected = np.array(net.forward())
    model = load_model("rtpose", weights=str(weights), preprocess=f"letterbox={height}/{width}")
    frames = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None]
    actual = model.module(model.transform(frames)).numpy()
    assert actual.shape == expected.shape == (1, 57, height // 8, width // 8)
    assert expected[:, :19].std() > 0.1
    assert expected[:, 19:].std() > 0.1
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)
