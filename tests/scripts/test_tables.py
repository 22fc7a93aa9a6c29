"""What the scripts that make the paper's tables share: datasets, rows that are kept, and pages."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Reading, find_datasets
from subjects import clip_frames, load_subject
from table_page import (
    NOT_TRAINED,
    Column,
    key_columns,
    shown,
    table_page,
    videos_column,
    weights_column,
    weights_of_row,
    weights_text,
)
from table_rows import RowFile
from tables import add_model_options, made_from, run_table, shown_spec, table_parser

from rrm_extract.errors import InputError, StoreMismatchError
from rrm_extract.models import load_model
from tests.clips import write_clip
from tests.tiny import MODEL

HEAD = {"settings": {"repeats": 3}, "machine": {"processor": "a", "architecture": "x", "cores": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips and a file that is none."""
    folder = tmp_path_factory.mktemp("datasets") / "walks"
    (folder / "a").mkdir(parents=True)
    for name in ("a/1.mp4", "a/2.mp4", "3.mp4", "4.avi"):
        write_clip(folder / name, n_frames=4)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def names(dataset: Dataset) -> list[str]:
    return [video.video_id for video in dataset.videos]


def test_a_dataset_is_a_folder_a_clip_or_a_job_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("inputs: ${WALKS}\nroot: ${WALKS}\ninclude: '*.avi'\nfps: 8\nmodel: vgg16\n")
    monkeypatch.setenv("WALKS", str(folder))
    given = [str(folder), f"other={folder}", str(folder / "3.mp4"), f"one={folder}/a/1.mp4",
             str(job), f"glob={folder}/a/*.mp4"]  # fmt: skip
    found = {one.name: one for one in find_datasets(given)}
    assert list(found) == ["walks", "other", "3", "one", "job", "glob"]
    assert names(found["walks"]) == ["3.mp4", "4.avi", "a/1.mp4", "a/2.mp4", "broken.mp4"]
    assert names(found["job"]) == ["4.avi"]
    assert names(found["one"]) == ["1.mp4"]
    assert names(found["glob"]) == ["1.mp4", "2.mp4"]
    assert (found["job"].fps, found["walks"].fps) == ("8", "24")
    assert {one.fps for one in find_datasets(given, fps="12")} == {"12"}


@pytest.mark.parametrize(
    ("name", "variable", "video"),
    [
        ("charades", "CHARADES", "001YG.mp4"),
        ("merl", "MERL", "1_1_crop.mp4"),
        ("ucf101", "UCF101", "Archery/v_Archery_g01_c01.avi"),
    ],
)
def test_the_job_files_of_the_papers_datasets(
    name: str, variable: str, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / video).parent.mkdir(exist_ok=True)
    (tmp_path / video).touch()
    (tmp_path / "readme.txt").touch()
    monkeypatch.setenv(variable, str(tmp_path))
    (dataset,) = find_datasets([str(Path(__file__).parents[2] / "configs" / f"{name}.yaml")])
    assert (dataset.name, names(dataset), dataset.fps) == (name, [video], "24")


def test_most_videos_are_spread_evenly(folder: Path) -> None:
    (dataset,) = find_datasets([str(folder)], max_videos=3)
    assert (names(dataset), dataset.found) == (["3.mp4", "a/1.mp4", "broken.mp4"], 5)
    (whole,) = find_datasets([str(folder)], max_videos=9)
    assert len(whole.videos) == whole.found == 5


def test_an_identity_knows_other_videos_and_other_rates(folder: Path, tmp_path: Path) -> None:
    def identity(*, fps: str | None = None, place: Path = folder) -> dict[str, Any]:
        return find_datasets([f"d={place}"], fps=fps)[0].identity()

    assert identity() == identity()
    assert identity() != identity(fps="12")
    write_clip(tmp_path / "3.mp4", n_frames=4)
    before = identity(place=tmp_path)
    write_clip(tmp_path / "3.mp4", n_frames=40)
    assert identity(place=tmp_path) != before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no dataset was given"),
        (["nowhere"], "nowhere does not exist"),
        (["x=nowhere"], "nowhere does not exist"),
        (["clips/*.avi"], r"expected NAME=clips/\*.avi"),
    ],
)
def test_a_wrong_dataset_is_refused(
    given: list[str], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        find_datasets(given)


def test_two_datasets_of_one_name_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="would both be called 'walks'"):
        find_datasets([str(folder), f"walks={folder}/a"])


def test_a_broken_video_is_named_and_ends_nothing(folder: Path) -> None:
    subject = load_subject(MODEL)
    (dataset,) = find_datasets([str(folder)])
    reading = Reading()
    read = reading.each(dataset, lambda path: clip_frames(path, subject, count=2))
    assert [(video.video_id, len(frames)) for video, frames in read] == [
        ("3.mp4", 2), ("4.avi", 2), ("a/1.mp4", 2), ("a/2.mp4", 2),
    ]  # fmt: skip
    (broken,) = reading.broken
    assert (reading.used, broken["video"]) == (4, "broken.mp4")
    assert str(folder) not in broken["error"]


def rows_of(
    path: Path | None, keys: Sequence[str], calls: list[str], *, source: int = 0,
    head: dict[str, Any] | None = None, anew: bool = False, stop_at: str = "",
) -> RowFile:  # fmt: skip
    table = RowFile(path, head or HEAD, anew=anew)
    for key in keys:

        def compute(key: str = key) -> dict[str, Any]:
            if key == stop_at:
                raise KeyboardInterrupt
            calls.append(key)
            return {"value": len(calls), "missing": float("nan")}

        table.row({"dataset": key}, {"source": source}, compute)
    return table


def test_finished_rows_are_not_made_again(tmp_path: Path) -> None:
    path, calls = tmp_path / "t.json", list[str]()
    with pytest.raises(KeyboardInterrupt):
        rows_of(path, "abc", calls, stop_at="c")
    assert [row["key"]["dataset"] for row in json.loads(path.read_text())["rows"]] == ["a", "b"]
    table = rows_of(path, "abc", calls)
    assert calls == ["a", "b", "c"]
    assert [row["value"] for row in table.result["rows"]] == [1, 2, 3]
    assert table.result["rows"][0]["missing"] is None
    assert json.loads(path.read_text()) == table.result
    # Fewer or other datasets the next time: what was made stays.
    rows_of(path, "d", calls)
    assert len(json.loads(path.read_text())["rows"]) == 4


def test_remarks_stay_with_the_rows_they_are_about(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    rows_of(path, "a", [])
    made = json.loads(path.read_text())
    path.write_text(json.dumps({**made, "remarks": ["The machine was busy."]}))
    table = rows_of(path, "ab", [])
    assert len(table.result["rows"]) == 2
    assert json.loads(path.read_text())["remarks"] == ["The machine was busy."]
    assert "remarks" not in rows_of(path, "ab", [], anew=True).result


def test_rows_that_belong_together_are_made_together(tmp_path: Path) -> None:
    path, calls = tmp_path / "t.json", list[int]()

    def make(*thresholds: float) -> list[Any]:
        def compute() -> list[dict[str, Any]]:
            calls.append(len(thresholds))
            return [{"run": len(calls)} for _ in thresholds]

        keys = [{"dataset": "a", "threshold": threshold} for threshold in thresholds]
        return RowFile(path, HEAD).rows(keys, {}, compute)

    make(0.0, 0.1)
    assert [row["run"] for row in make(0.1)] == [1]
    assert [row["run"] for row in make(0.0, 0.1, 0.2)] == [2, 2, 2]
    assert calls == [2, 3]
    assert len(json.loads(path.read_text())["rows"]) == 3


def test_other_settings_are_no_mix(tmp_path: Path) -> None:
    path, calls = tmp_path / "t.json", list[str]()
    rows_of(path, "ab", calls)
    other = {**HEAD, "settings": {"repeats": 5}}
    with pytest.raises(StoreMismatchError, match=r"settings\.repeats is 3 there, 5 here.*--anew"):
        rows_of(path, "ab", calls, head=other)
    with pytest.raises(StoreMismatchError, match=r"row a was made from something else \(source is"):
        rows_of(path, "ab", calls, source=1)
    assert calls == ["a", "b"]
    table = rows_of(path, "a", calls, head=other, anew=True)
    assert [row["value"] for row in table.result["rows"]] == [3]


@pytest.mark.parametrize("text", ["[]", "{}", '{"rows": 3}'])
def test_a_file_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(StoreMismatchError, match="holds no rows of a table"):
        RowFile(path, HEAD)


def test_without_a_file_nothing_is_kept() -> None:
    assert len(rows_of(None, "ab", []).result["rows"]) == 2


def test_a_page_labels_its_columns_and_weights() -> None:
    head = {**HEAD, "versions": {"python": "3"}, "command": "python x.py", "remarks": ["Busy."]}
    table = RowFile(None, head)
    for name, weights in (("a", "random:0"), ("b", "file:real.pth")):
        broken = [{"video": "x.avi", "error": "x.avi: no video"}] if name == "b" else []
        table.row(
            {"dataset": name, "model": "m|n"}, {},
            lambda weights=weights, broken=broken: {
                "weights": weights, "frames": 1, "videos_used": 1, "videos_broken": broken,
                "theory": 2.0, "wall": None,
            },
        )  # fmt: skip
    columns = [
        *key_columns("dataset", "model"),
        weights_column(),
        videos_column(),
        Column(title="speedup", cell=lambda row: shown(row["theory"]), kind="theoretical"),
        Column(title="speedup", cell=lambda row: shown(row["wall"]), kind="measured"),
    ]
    text = table_page(table.result, columns, title="Table 0", notes=["What it means."])
    assert "| speedup (theoretical) | speedup (measured) |" in text
    assert r"| a | m\|n | random:0: not trained | 1, 1 frame | 2.00 | - |" in text
    assert r"| b | m\|n | file:real.pth | 1, 1 frame; 1 broken | 2.00 | - |" in text
    assert "- b: x.avi: no video" in text
    assert "- What it means." in text
    assert "    python x.py\n\nBusy.\n\n| dataset |" in text
    assert "Weights called *not trained*" in text


@pytest.mark.parametrize(
    ("weights", "is_said"),
    [
        ("random:0", True),
        ("random", True),
        ("file:small.dcz of random:12", True),
        ("file:random.pth", False),
        ("ResNet18_Weights.IMAGENET1K_V1", False),
    ],
)
def test_generated_weights_are_called_so(weights: str, is_said: bool) -> None:
    assert weights_text(weights) == (f"{weights}: {NOT_TRAINED}" if is_said else weights)
    assert weights_of_row({"weights": weights, "weights_generated": True}).endswith(NOT_TRAINED)


def script(patch: pytest.MonkeyPatch, *arguments: str | Path) -> Any:
    """A table of how many videos there are."""
    patch.setattr(sys, "argv", ["counts.py", *map(str, arguments)])
    parser = table_parser("Counts.")
    add_model_options(parser, models=["resnet18"])
    options = parser.parse_args()

    def fill(table: RowFile, datasets: Sequence[Dataset]) -> None:
        for dataset in datasets:
            reading = Reading()
            frames = sum(1 for _ in reading.each(dataset, Path.stat))
            values = {"weights": options.weights, "frames": frames, **reading.to_json()}
            source = made_from(dataset, options.weights)
            table.row({"dataset": dataset.name}, source, partial(dict, values))

    return run_table(
        options,
        name="counts",
        packages=("numpy",),
        settings={"weights": options.weights},
        fill=fill,
        page=lambda result: table_page(
            result, [*key_columns("dataset"), videos_column()], title="Counts", notes=[]
        ),
    )


def test_a_script_writes_its_rows_and_its_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    json_path, page = tmp_path / "new" / "c.json", tmp_path / "new" / "c.md"
    outputs = ("--json", json_path, "--markdown", page)
    result = script(monkeypatch, f"walks={folder}", folder / "a/1.mp4", *outputs)
    assert json.loads(json_path.read_text()) == result
    assert result["settings"] == {"weights": "default", "max_frames": None}
    assert result["command"].startswith("python scripts/counts.py walks=walks 1=1.mp4 --json")
    assert str(tmp_path) not in json_path.read_text()
    assert page.read_text() == capsys.readouterr().out.removesuffix("\n")
    with pytest.raises(SystemExit, match="max_frames is null there, 3 here"):
        script(monkeypatch, f"walks={folder}", "--max-frames", "3", *outputs)
    assert script(monkeypatch, "--from", json_path) == result
    assert capsys.readouterr().out.removesuffix("\n") == page.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "counts.py: no dataset was given"),
        (("nowhere",), "counts.py: input nowhere does not exist"),
        (("--svg", "x.svg"), "counts draws nothing"),
        (("--from", "other.json"), r"expected a file that scripts/counts.py wrote"),
        (("--max-frames", "0"), "2"),
    ],
)
def test_a_wrong_request_ends_the_program(
    arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"table": "other"}')
    with pytest.raises(SystemExit, match=words):
        script(monkeypatch, *arguments)


def test_weights_that_a_factory_makes_anew_are_another_source(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dataset,) = find_datasets([str(folder)])
    monkeypatch.syspath_prepend(tmp_path)
    text = "import torch\nfrom tests.tiny import Tiny\n"
    found = []
    for number, seed in enumerate((1, 1, 2)):  # three modules: Python imports each once
        (tmp_path / f"own{number}.py").write_text(
            f"{text}def make():\n    torch.manual_seed({seed})\n    return Tiny()\n"
        )
        source = made_from(dataset, f"own{number}:make", "default", "")
        found.append(source["files"][f"own{number}:make"])
    assert found[0] == found[1] != found[2]
    assert found[0] == load_model("own0:make").weights_sha256
    assert made_from(dataset, "resnet18", "random:0", "")["files"] == {}


def test_changed_weights_are_another_source(folder: Path, tmp_path: Path) -> None:
    (dataset,) = find_datasets([str(folder)])
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"1")
    first = made_from(dataset, f"alexnet={weights}", "random:0")
    assert (first["weights"], list(first["files"])) == (["alexnet=w.pth", "random:0"], ["w.pth"])
    assert shown_spec("darknet:/x/y.cfg=/z/w.weights") == "darknet:y.cfg=w.weights"
    weights.write_bytes(b"2")
    assert made_from(dataset, f"alexnet={weights}", "random:0") != first
