"""Labels as they are published, and as nobody should publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_specs import folder_labels, read_labels
from labelled_features import unlabelled
from labels import LabelError

from rrm_extract.errors import UsageError
from tests.scripts.published import (
    CHARADES_TEST,
    CHARADES_TRAIN,
    CLASS_IND,
    CSV_HEAD,
    TEST_LIST,
    TRAIN_LIST,
    write_charades,
    write_ucf101,
)

ROW = "AB12C,S,Den,1,1,Yes,s,o,d,{},9\n"


def of(labels: Any, video_id: str) -> list[str]:
    key = labels.key(video_id)
    return [labels.classes[number] for number in labels.train.get(key, labels.test.get(key, ()))]


# --- UCF-101 -------------------------------------------------------------------------------------


def test_ucf101_as_published(tmp_path: Path) -> None:
    labels = read_labels(str(write_ucf101(tmp_path)), [])
    assert labels.name == "UCF-101, split 1"
    assert labels.classes == ("ApplyEyeMakeup", "Archery", "HandstandPushups")
    assert not labels.multi_label
    assert (len(labels.train), len(labels.test)) == (4, 3)


@pytest.mark.parametrize(
    "video_id",
    [
        "v_Archery_g08_c01.avi",
        "Archery/v_Archery_g08_c01.avi",
        "UCF-101/Archery/v_Archery_g08_c01.avi",
        "archery/v_Archery_g08_c01.mp4",
    ],
)
def test_ids_of_ucf101_may_have_folders_before_them(tmp_path: Path, video_id: str) -> None:
    labels = read_labels(str(write_ucf101(tmp_path)), [])
    assert of(labels, video_id) == ["Archery"]
    assert labels.by_key([video_id, "Archery/v_Archery_g99_c01.avi"]) == {
        "v_archery_g08_c01": video_id
    }


def test_the_class_whose_files_are_spelt_in_two_ways(tmp_path: Path) -> None:
    labels = read_labels(str(write_ucf101(tmp_path)), [])
    for name in ("HandstandPushups", "HandStandPushups"):
        assert of(labels, f"HandstandPushups/v_{name}_g01_c01.avi") == ["HandstandPushups"]


def test_a_video_that_is_there_twice_fails(tmp_path: Path) -> None:
    labels = read_labels(str(write_ucf101(tmp_path)), [])
    ids = ["a/v_Archery_g08_c01.avi", "b/v_Archery_g08_c01.avi"]
    with pytest.raises(LabelError, match=r"'a/v_Arch.*' and 'b/v_Arch.*' are both the video"):
        labels.by_key(ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classInd": ""}, r"classInd\.txt: it is empty"),
        ({"classInd": "ApplyEyeMakeup\n"}, r"classInd\.txt:1: 'ApplyEyeMakeup'; expected a num"),
        ({"classInd": "x Archery\n"}, r"classInd\.txt:1: 'x Archery'; expected a number"),
        ({"classInd": CLASS_IND + "4 Archery\n"}, r":4: '4 Archery' repeats"),
        ({"classInd": CLASS_IND + "2 Diving\n"}, r":4: '2 Diving' repeats"),
        ({"classInd": CLASS_IND + "9 Diving\n"}, "its numbers are not 1 to 4"),
        ({"trainlist01": ""}, r"trainlist01\.txt: it is empty"),
        ({"trainlist01": TEST_LIST}, r"trainlist01\.txt:1: .*expected 'Class/v_NAME.avi NUMBER'"),
        ({"trainlist01": "v_a.avi 1\n"}, "expected 'Class/v_NAME.avi NUMBER'"),
        ({"trainlist01": "Diving/v_a.avi 1\n"}, r":1: class 'Diving' is not in classInd"),
        ({"trainlist01": "Archery/v_a.avi 1\n"}, ":1: number 1; classInd.txt has 2 for 'Archery'"),
        ({"trainlist01": TRAIN_LIST * 2}, r":5: video '.*_g08_c01.avi' is listed a second time"),
        ({"trainlist01": None}, r"no trainlist01.txt for split 1; it has testlist01.txt"),
        ({"testlist01": "Diving/v_a.avi\n"}, r"testlist01\.txt:1: class 'Diving'"),
        ({"testlist01": TRAIN_LIST}, r"testlist01\.txt:1: .*expected 'Class/v_NAME.avi'"),
        (
            {"testlist01": TEST_LIST + "Archery/v_Archery_g08_c01.avi\n"},
            r"'v_archery_g08_c01' is in trainlist01.txt and in testlist01.txt \(1 are\)",
        ),
    ],
)
def test_lists_of_ucf101_that_are_not_as_published_fail(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(str(write_ucf101(tmp_path, **changes)), [])


def test_a_split_that_is_not_there_fails(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"no trainlist02.txt for split 2; it has testlist01.txt"):
        read_labels(str(write_ucf101(tmp_path)), [], split=2)


def test_bytes_that_are_no_text_fail(tmp_path: Path) -> None:
    write_ucf101(tmp_path)
    (tmp_path / "testlist01.txt").write_bytes(b"\xff\xfe\x00A")
    with pytest.raises(LabelError, match=r"testlist01\.txt is no text"):
        read_labels(str(tmp_path), [])


# --- Charades ------------------------------------------------------------------------------------


def test_charades_as_published(tmp_path: Path) -> None:
    labels = read_labels(str(write_charades(tmp_path)), [])
    assert labels.name == "Charades"
    assert labels.multi_label
    assert of(labels, "46GP8.mp4") == [
        "c092 Watching/looking at a picture",
        "c147 Cooking something",
    ]
    # Twice the same action in one video.
    assert [name[:4] for name in of(labels, "Charades_v1_480/YSKX3.mp4")] == ["c092", "c098"]
    assert labels.test[labels.key("ZZZZZ.mp4")] == ()
    assert (len(labels.train), len(labels.test)) == (2, 2)


def test_charades_without_its_list_of_classes(tmp_path: Path) -> None:
    labels = read_labels(str(write_charades(tmp_path, classes=None)), [])
    assert labels.classes == ("c092", "c098", "c147")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ""}, r"no column actions and id, only none"),
        ({"train": "id,script\nAB12C,s\n"}, r"train\.csv: it has no column actions, only id, scr"),
        ({"train": CSV_HEAD}, r"train\.csv: it lists no video"),
        ({"train": CSV_HEAD + "AB12C,HR43\n"}, r"train\.csv:2: the row lacks its id or its act"),
        ({"train": CSV_HEAD + ROW.format("c1 0 1").replace("AB12C", "")}, ":2: the row lacks"),
        (
            {"train": CSV_HEAD + ROW.format("c092 11.90")},
            ":2: action 'c092 11.90'; expected a code",
        ),
        ({"train": CSV_HEAD + ROW.format("c092 a b")}, "action 'c092 a b'"),
        ({"train": CSV_HEAD + ROW.format("c092 0 nan")}, "action 'c092 0 nan'"),
        (
            {"train": CSV_HEAD + ROW.format("c999 0 1")},
            r":2: class 'c999' is not in Charades_v1_cl",
        ),
        ({"train": CSV_HEAD + 2 * ROW.format("")}, ":3: video 'AB12C' is listed a second time"),
        ({"train": CHARADES_TRAIN, "test": CHARADES_TRAIN}, r"in Charades_v1_test.csv \(2 are\)"),
        ({"test": None}, r"Charades_v1_test\.csv cannot be read: No such file"),
        ({"classes": "c092\n"}, r"classes\.txt:1: 'c092'; expected a code of its own and a name"),
        ({"classes": "c092 A\nc092 B\n"}, r"classes\.txt:2"),
        (
            {
                "train": CSV_HEAD + ROW.format(""),
                "test": CSV_HEAD + ROW.format(""),
                "classes": None,
            },
            "no video has an action",
        ),
    ],
)
def test_files_of_charades_that_are_not_as_published_fail(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(str(write_charades(tmp_path, **changes)), [])


def test_a_field_without_end_fails(tmp_path: Path) -> None:
    endless = CHARADES_TEST + '"' + "x" * 200_000
    with pytest.raises(LabelError, match=r"test\.csv:\d+: field larger than"):
        read_labels(str(write_charades(tmp_path, test=endless)), [])


# --- folders -------------------------------------------------------------------------------------

IDS = [f"set/{name}/{n}.mp4" for name in ("Run", "Walk") for n in range(10)]


def test_folders_are_classes() -> None:
    labels = folder_labels([*IDS, "lonely.mp4"], test_share=0.3, seed=0)
    assert labels.classes == ("Run", "Walk")
    assert of(labels, "set/Walk/3.mp4") == ["Walk"]
    assert labels.key("set/Walk/3.mp4") == "set/Walk/3.mp4"
    assert "lonely.mp4" not in labels.by_key([*IDS, "lonely.mp4"])
    assert len(labels.test) == 6
    assert sorted(labels.test.values()) == [(0,)] * 3 + [(1,)] * 3


@given(st.permutations(IDS), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_the_split_depends_on_the_seed_alone(ids: list[str], share: float, seed: int) -> None:
    labels = folder_labels(ids, test_share=share, seed=seed)
    assert labels == folder_labels(IDS, test_share=share, seed=seed)
    assert sorted([*labels.train, *labels.test]) == sorted(IDS)
    for part in (labels.train, labels.test):
        assert set(part.values()) == {(0,), (1,)}


def test_another_seed_and_another_class() -> None:
    first = folder_labels(IDS, test_share=0.5, seed=0)
    assert first.test != folder_labels(IDS, test_share=0.5, seed=1).test
    more = folder_labels([*IDS, "A/1.mp4", "A/2.mp4"], test_share=0.5, seed=0)
    assert {key for key in more.test if key.startswith("set")} == set(first.test)


@pytest.mark.parametrize(
    ("ids", "share", "message"),
    [
        (IDS, 0.0, "test share 0.0: expected a number between 0 and 1"),
        (IDS, float("nan"), "test share nan"),
        (IDS[:10], 0.3, r"the videos lie in 1 folders \(Run\)"),
        (["a.mp4", "b.mp4"], 0.3, r"0 folders \(none\).*begin below --root"),
        ([*IDS, "Sit/0.mp4"], 0.3, "class 'Sit' has one video, 'Sit/0.mp4'; expected at least two"),
    ],
)
def test_folders_that_cannot_be_divided_fail(ids: list[str], share: float, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        folder_labels(ids, test_share=share, seed=0)


# --- what is meant -------------------------------------------------------------------------------


def test_a_spec_that_means_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for spec, what in (
        (tmp_path, "neither classInd.txt"),
        (tmp_path / "no", "does not exist"),
        (tmp_path / "file", "is no folder"),
    ):
        with pytest.raises(LabelError, match=what) as caught:
            read_labels(str(spec), [])
        assert "or the word 'folders'" in str(caught.value)
        assert isinstance(caught.value, UsageError)


def test_the_word_folders() -> None:
    assert read_labels("folders", IDS, test_share=0.2).name.startswith("folders, 0.2 of each")


def test_a_video_under_two_roots_is_no_stranger(tmp_path: Path) -> None:
    labels = read_labels(str(write_ucf101(tmp_path)), [])
    ids = {"UCF-101/Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g01_c01.avi", "x/y.avi"}
    assert unlabelled(ids, labels) == ["x/y.avi"]
