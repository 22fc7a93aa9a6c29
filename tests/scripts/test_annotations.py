"""Annotations as they are published, and as nobody should publish them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import read_annotations
from annotations import AnnotatedFrame, AnnotationError, MarkedBody, MarkedBox, class_key
from hypothesis import given
from hypothesis import strategies as st

from rrm_extract.errors import UsageError

# --- YouTube-BoundingBoxes -----------------------------------------------------------------------

TABLE = """\
AAB6lO-XiKE,238000,0,person,0,present,0.482,0.54,0.37166667,0.6166667
AAB6lO-XiKE,239000,0,person,0,absent,-1.0,-1.0,-1.0,-1.0
AAB6lO-XiKE,238000,18,potted plant,1,present,0.0,0.25,0.5,1.0
_zzz,1500,22,motorcycle,0,present,0.1,0.2,0.3,0.4
_zzz,2500,22,motorcycle,0,uncertain,-1.0,-1.0,-1.0,-1.0
"""


def table(folder: Path, text: str) -> Path:
    path = folder / "yt_bb_detection_validation.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("heading", ["", "youtube_id,timestamp_ms,a,b,c,d,e,f,g,h\n"])
def test_youtube_bb_as_published(tmp_path: Path, heading: str) -> None:
    read = read_annotations(table(tmp_path, heading + TABLE))
    assert (read.name, read.parts) == ("YouTube-BoundingBoxes", ())
    first, second = read.of("train/AAB6lO-XiKE.mp4")
    assert first == AnnotatedFrame(
        seconds=238.0,
        boxes=(
            MarkedBox(name="person", corners=(0.482, 0.37166667, 0.54, 0.6166667)),
            MarkedBox(name="pottedplant", corners=(0.0, 0.5, 0.25, 1.0)),
        ),
        looked_for=frozenset({"person", "pottedplant"}),
        size=(1.0, 1.0),
    )
    assert (second.boxes, second.looked_for) == ((), frozenset({"person"}))
    (only,) = read.of("_zzz.webm")
    assert (only.seconds, only.looked_for) == (1.5, frozenset({"motorbike"}))
    assert read.of("other.mp4") == ()


def test_youtube_bb_as_it_is_downloaded(tmp_path: Path) -> None:
    path = tmp_path / "yt_bb_detection_validation.csv.gz"
    path.write_bytes(gzip.compress(TABLE.encode()))
    assert read_annotations(path) == read_annotations(table(tmp_path, TABLE))
    some = read_annotations(path, wanted={"_zzz", "other"})
    assert list(some.videos) == ["_zzz"]
    assert read_annotations(path, wanted={"other"}).videos == {}
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(AnnotationError, match="is no table") as error:
        read_annotations(path)
    one_line(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it names no object; expected rows of youtube_id, timestamp_ms"),
        ("a,1,0,person,0\n", ":1: 5 columns, expected 10: youtube_id"),
        (TABLE + "a,1.5,0,person,0,present,0,1,0,1\n", r":6: 'a', '1.5', class 'person'; expected"),
        (TABLE + ",1,0,person,0,present,0,1,0,1\n", ":6: '', '1', class 'person'"),
        (TABLE + "a,1,0,person,0,there,0,1,0,1\n", ":6: object_presence is 'there', expected pres"),
        (TABLE + "a,1,0,person,0,present,0,2,0,1\n", ":6: xmin, xmax, ymin, ymax are 0, 2, 0, 1;"),
        (TABLE + "a,1,0,person,0,present,.2,.1,0,1\n", ":6: xmin, xmax, ymin, ymax are .2, .1"),
        (TABLE + "a,1,0,person,0,present,x,1,0,1\n", ":6: xmin, xmax, ymin, ymax are x, 1"),
        (TABLE + "a,1,0,person,0,present,nan,1,0,1\n", ":6: xmin, xmax, ymin, ymax are nan"),
    ],
)
def test_a_wrong_table_fails(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as error:
        read_annotations(table(tmp_path, text))
    one_line(error.value)


@given(st.text(max_size=60))
def test_any_table_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = table(tmp_path_factory.getbasetemp(), text)
    try:
        read_annotations(path)
    except AnnotationError as error:
        one_line(error)


@pytest.mark.parametrize(
    ("name", "key"),
    [("Potted plant", "pottedplant"), ("airplane", "aeroplane"), ("dining_table", "diningtable")],
)
def test_classes_have_one_spelling(name: str, key: str) -> None:
    assert class_key(name) == class_key(key) == key


# --- BBC Pose ------------------------------------------------------------------------------------


def bbc_pose(folder: Path, videos: list[dict[str, Any]], variable: str = "bbcpose") -> Path:
    """Writes the struct array that MATLAB would."""
    scipy_io = pytest.importorskip("scipy.io", reason="SciPy is not installed")
    names = list(videos[0])
    array = np.empty((1, len(videos)), dtype=[(name, object) for name in names])
    for number, video in enumerate(videos):
        for name in names:
            array[0, number][name] = video[name]
    scipy_io.savemat(folder / "bbcpose.mat", {variable: array})
    return folder / "bbcpose.mat"


def bbc_video(frames: list[int], joints: np.ndarray | None = None) -> dict[str, Any]:
    joints = np.zeros((2, 7, len(frames))) if joints is None else joints
    return {
        "videoName": "a", "type": "test", "source": "buehler11",
        "train_frames": np.array([1.0, 2.0]), "train_joints": np.zeros((2, 7, 2)),
        "test_frames": np.array([frames], float), "test_joints": joints,
    }  # fmt: skip


def test_bbc_pose_as_published(tmp_path: Path) -> None:
    joints = np.arange(28.0).reshape(2, 7, 2) + 1
    joints[:, 2, 1] = np.nan
    path = bbc_pose(tmp_path, [bbc_video([]), bbc_video([7, 31], joints), bbc_video([5])])
    read = read_annotations(path)
    assert read.name == "BBC Pose"
    assert sorted(read.videos) == ["2", "3"]
    first, second = read.of("2.mkv")
    assert (first.number, second.number, first.seconds, first.size) == (6, 30, None, None)
    (body,) = first.bodies
    assert body.points["head"] == (0.5, 14.5)
    assert body.points["left_shoulder"] == (12.5, 26.5)
    assert set(read.parts) - set(second.bodies[0].points) == {"left_wrist"}
    (only,) = read.of("3.mkv")
    assert only.number == 4


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ({"test_frames": np.zeros(1)}, "video 1: it lacks test_frames or test_joints"),
        (bbc_video([0]), "video 1: a test frame is 0; expected whole numbers"),
        (bbc_video([3], np.zeros((2, 6, 1))), r"video 1: .*expected N test_frames and test_joi"),
        (bbc_video([]), "no video has test_frames"),
    ],
)
def test_a_wrong_bbc_pose_fails(tmp_path: Path, video: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as error:
        read_annotations(bbc_pose(tmp_path, [video]))
    one_line(error.value)


# --- MPII ----------------------------------------------------------------------------------------


def person(*points: tuple[int, float, float]) -> dict[str, Any]:
    marks = [{"id": number, "x": x, "y": y, "is_visible": 1} for number, x, y in points]
    return {"x1": 0, "y1": 0, "x2": 9, "y2": 9, "annopoints": {"point": marks}}


PICTURES: list[dict[str, Any]] = [
    {"image": {"name": "images/bonn_5/000012.jpg"}, "annorect": None},
    {"image": {"name": "images/bonn_5/000014.jpg"},
     "annorect": [person((0, 10, 20), (15, 30.5, 41)), {"x1": 0, "annopoints": None}]},
    {"image": {"name": "b/1.jpg"}, "annorect": [person((9, 1, 2))]},
]  # fmt: skip


def check_mpii(path: Path) -> None:
    read = read_annotations(path)
    (frame,) = read.of("bonn_5.mkv")
    assert (frame.number, len(frame.bodies)) == (2, 1)
    assert frame.bodies[0].points == {"right_ankle": (9.5, 19.5), "left_wrist": (30.0, 40.5)}
    assert read.of("b.mkv")[0].bodies == (MarkedBody(points={"head_top": (0.5, 1.5)}),)


@pytest.mark.parametrize("content", [PICTURES, [[PICTURES[:2]], [PICTURES[2:]]]])
def test_mpii_as_json(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "mpii-video-annotations.json"
    path.write_text(json.dumps(content))
    check_mpii(path)


def test_mpii_as_matlab(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="SciPy is not installed")
    path = tmp_path / "annolist.mat"
    array = np.empty((1, len(PICTURES)), dtype=[("image", object), ("annorect", object)])
    for number, picture in enumerate(PICTURES):
        array[0, number]["image"] = picture["image"]
        people = [p for p in picture["annorect"] or [] if p["annopoints"]]
        array[0, number]["annorect"] = people[0] if people else np.zeros((0, 0))
    scipy_io.savemat(path, {"annolist": array})
    check_mpii(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"a": 1}], "neither of COCO's form"),
        ([{"image": {"name": "x.png"}}], r"a picture is called 'x.png'; expected <sequence>/<nu"),
        ([{"image": []}], "a picture is called None"),
        ([PICTURES[2], PICTURES[2]], "picture 1 of b is there twice"),
        ([PICTURES[0]], "no picture has people with joints"),
        ([{**PICTURES[2], "annorect": [person((16, 1, 1))]}], "picture 1 of b: .*IndexError"),
        ([{**PICTURES[2], "annorect": [{"annopoints": {"point": [{}]}}]}], "KeyError: 'id'"),
    ],
)
def test_a_wrong_mpii_fails(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=message) as error:
        read_annotations(path)
    one_line(error.value)


# --- COCO ----------------------------------------------------------------------------------------


def coco() -> dict[str, Any]:
    return {
        "videos": [{"id": 3, "name": "day/b.mp4"}],
        "images": [
            {"id": 1, "video": "a.mp4", "frame_index": 7, "width": 640, "height": 480},
            {"id": 2, "video_id": 3, "timestamp": 0.5, "width": 320, "height": 240},
        ],
        "categories": [
            {"id": 1, "name": "person", "keypoints": ["nose", "left eye"]},
            {"id": 9, "name": "airplane"},
        ],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "area": 600,
             "keypoints": [1, 2, 2, 3, 4, 0]},
            {"image_id": 1, "category_id": 9, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        ],
    }  # fmt: skip


def coco_file(folder: Path, content: Any) -> Path:
    path = folder / "a.json"
    path.write_text(json.dumps(content))
    return path


def test_coco(tmp_path: Path) -> None:
    read = read_annotations(coco_file(tmp_path, coco()))
    assert read.parts == ("nose", "left_eye")
    (first,) = read.of("a.avi")
    assert (first.number, first.seconds, first.size) == (7, None, (480.0, 640.0))
    assert first.looked_for == {"person", "aeroplane"}
    assert first.boxes == (
        MarkedBox(name="person", corners=(10, 20, 40, 60)),
        MarkedBox(name="aeroplane", corners=(0, 0, 5, 5), is_crowd=True),
    )
    assert first.bodies == (
        MarkedBody(points={"nose": (1.0, 2.0)}, area=600.0, corners=(10, 20, 40, 60)),
    )
    (second,) = read.of("b.mp4")
    assert (second.seconds, second.boxes) == (0.5, ())


def test_the_images_of_an_export_can_be_annotated(tmp_path: Path) -> None:
    content = coco()
    content["images"][0] = {"id": 1, "width": 640, "height": 480, "video_id": "day/a.mp4",
                            "frame": 3, "frame_index": 7, "timestamp": 0.28}  # fmt: skip
    read = read_annotations(coco_file(tmp_path, content))
    assert read.of("day/a.mp4")[0].number == 7


def test_two_videos_of_one_name_fail(tmp_path: Path) -> None:
    content = coco()
    content["images"][1] |= {"video": "night/a.mp4"}
    with pytest.raises(AnnotationError, match=r"both 'a\.mp4' and 'night/a\.mp4' are called 'a'"):
        read_annotations(coco_file(tmp_path, content))


def test_people_without_points_are_those_in_their_boxes(tmp_path: Path) -> None:
    content = changed("annotations", 0, keypoints=[0, 0, 0, 0, 0, 0], iscrowd=1)
    (frame,) = read_annotations(coco_file(tmp_path, content)).of("a.mp4")
    assert frame.bodies == (
        MarkedBody(points={}, area=600.0, corners=(10, 20, 40, 60), is_crowd=True),
    )


def test_what_is_null_is_not_there(tmp_path: Path) -> None:
    content = changed("categories", 1, keypoints=None) | {"videos": None}
    content["images"][1]["video_id"] = "b.mp4"
    read = read_annotations(coco_file(tmp_path, content))
    assert (read.parts, len(read.of("b.mp4"))) == (("nose", "left_eye"), 1)


def changed(where: str, number: int, **values: Any) -> dict[str, Any]:
    content = coco()
    content[where][number] |= values
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "neither of COCO's form"),
        (coco() | {"images": [], "annotations": []}, "it lists no image"),
        (coco() | {"images": [{}]}, "an entry lacks 'id'"),
        (changed("annotations", 0, image_id=5), "annotation 0: image 5, category 1; expected one"),
        (changed("annotations", 0, bbox=[1, 2, 3]), r"annotation 0: bbox: \[1, 2, 3\]; expected 4"),
        (changed("annotations", 0, bbox=[1, 2, -3, 4]), "annotation 0: bbox is -3 wide"),
        (changed("annotations", 0, keypoints=[1, 2, 2]), "annotation 0: keypoints: .*expected 6"),
        (changed("annotations", 0, area="x"), "annotation 0: area: .*expected a number"),
        (changed("annotations", 1, keypoints=[1, 2, 2]), "annotation 1: keypoints"),
        (changed("images", 0, video=None), "image 1: no video; expected its file's name"),
        (changed("images", 1, video_id=8), "image 2: no video"),
        (changed("images", 0, frame_index=-1), "image 1: frame_index is -1; expected a whole"),
        (changed("images", 0, width=0), "image 1: height and width are 480 and 0"),
        (changed("images", 1, timestamp=None), "image 2: timestamp: None; expected a number"),
        (changed("images", 1, video_id=[1]), "image 2: no video"),
        (changed("images", 0, frame_index=10**400), "image 1: frame_index: 1000.*; expected"),
        (changed("categories", 0, name=3), "category 3, key points"),
        (changed("categories", 0, keypoints=5), "category 'person': keypoints: 5; expected a list"),
        (coco() | {"videos": 5}, "videos: 5; expected a list"),
    ],
)
def test_a_wrong_coco_fails(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as error:
        read_annotations(coco_file(tmp_path, content))
    one_line(error.value)


# --- Files of no known form ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", None, "cannot be read: No such file"),
        ("a.json", None, "cannot be read: No such file"),
        ("a.mat", None, "cannot be read: No such file"),
        ("a.txt", b"", r"expected a \.csv or \.csv\.gz of YouTube-BoundingBoxes, bbcpose.mat"),
        ("a.json", b"{", "is no JSON"),
        ("a.json", b"\xff", "is no JSON"),
        ("a.json", b"1" * 5000, "is no JSON"),
        ("a.csv", b"\xff\xfe\xff", "is no table"),
        ("a.csv.gz", b"not packed", "is no table"),
        ("a.csv.gz", None, "cannot be read: No such file"),
        ("a.mat", b"no matlab at all", "is no .mat file or a damaged one"),
    ],
)
def test_other_files_fail(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if name.endswith(".mat"):
        pytest.importorskip("scipy.io", reason="SciPy is not installed")
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AnnotationError, match=message) as error:
        read_annotations(path)
    one_line(error.value)


def test_a_matlab_file_of_something_else_fails(tmp_path: Path) -> None:
    path = bbc_pose(tmp_path, [bbc_video([1])], variable="other")
    with pytest.raises(AnnotationError, match="has no annolist"):
        read_annotations(path)


def one_line(error: AnnotationError) -> None:
    assert isinstance(error, UsageError)
    assert "\n" not in str(error)
