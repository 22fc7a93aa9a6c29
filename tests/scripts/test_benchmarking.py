"""How figures are taken."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from benchmarking import (
    counted,
    interleaved,
    read_json,
    records_before,
    require,
    save_json,
    versions,
)


def test_every_run_has_its_turn_in_every_round() -> None:
    turns: list[str] = []

    def run(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    values = interleaved([partial(run, name) for name in "abc"], repeats=3)
    assert "".join(turns) == "abcabcabc"
    assert values == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]


def test_a_file_is_written_whole_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    save_json({"records": [1.5, None]}, path)
    save_json({"records": [2.5, None]}, path)
    assert read_json(path) == {"records": [2.5, None]}
    assert [file.name for file in path.parent.iterdir()] == ["figures.json"]


def test_records_of_the_same_build_are_added_to(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    head = {"versions": versions(("numpy", "no-such-package"))}
    assert records_before(path, head) == []
    save_json({**head, "records": [{"rate": 1.5}]}, path)
    assert records_before(path, head) == [{"rate": 1.5}]
    other = {"versions": {**head["versions"], "code": "of another build"}}
    with pytest.raises(SystemExit, match=r"figures\.json: --add: its versions are others"):
        records_before(path, other)


@pytest.mark.parametrize("content", [None, "{"])
def test_a_file_that_is_no_json_fails(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "figures.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"figures\.json: .*expected a file that a benchmark"):
        read_json(path)


def test_a_module_that_is_there_is_given() -> None:
    assert require("json") is json


def test_a_module_that_is_missing_fails() -> None:
    with pytest.raises(SystemExit, match=r'no_such_module.*extra "bench"'):
        require("no_such_module")


def test_nouns_are_counted() -> None:
    assert [counted(number, "thread") for number in (1, 2)] == ["1 thread", "2 threads"]
