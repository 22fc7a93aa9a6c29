"""The documents' way from stored raw outputs to objects, on a clip that is shown upright."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rrm_extract import FeatureFile
from tests.command import rrm_extract
from tests.tasks.jobs import detection, write_detector
from tests.video.test_picture import write_corners

DOCS = Path(__file__).parents[2] / "docs"


def example(document: str, words: str) -> str:
    """The one block of Python with these words."""
    text = (DOCS / document).read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.S) if words in block)
    return code


def replaced(code: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    return code


def test_objects_of_stored_raw_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_detector(tmp_path)
    write_corners(tmp_path / "turned.mov", (0, 1, -1, 0))
    raw = ("--layer", "layers.4", "--pool", "none", "--workers", "1")
    for arguments in (
        detection("turned.mov", "objects.h5", "--workers", "1"),
        detection("turned.mov", "raw.h5", *raw, task="features"),
    ):
        done = rrm_extract(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    code = replaced(
        example("detection.md", "Detector.of"),
        {
            '"yolov2", weights="yolov2.weights"': '"darknet:net.cfg", weights="net.weights"',
            "clip.mp4": "turned.mov",
            "detector.names[kind]": "kind",  # which a .cfg file does not have
        },
    )
    names: dict[str, object] = {}
    exec(code, names)
    frames = names["frames"]
    assert isinstance(frames, list)
    with FeatureFile(tmp_path / "objects.h5") as file:
        stored = file["turned.mov"].detections
        assert stored.frame_size[0].tolist() == [48, 32]
        assert stored.total > 0
        for one, other in zip(stored, frames, strict=True):
            np.testing.assert_array_equal(one.boxes, other.pixels)


def test_people_of_stored_raw_outputs_are_of_the_same_size() -> None:
    sizes = re.compile(r" {4}height, width = .*?\n {4}frames = \w+(.*?)\n", re.S)
    of_objects, of_people = (
        sizes.search(example(document, words))
        for document, words in (("detection.md", "Detector.of"), ("pose.md", "PoseEstimator.of"))
    )
    assert of_objects is not None
    assert of_people is not None
    assert of_objects[1] == of_people[1] == "(video.features, height=height, width=width)"
    assert of_objects[0].replace("detector", "") == of_people[0].replace("estimator", "")
