"""The published table beside ours."""

from __future__ import annotations

import json
from pathlib import Path

import eie_table
import pytest

from rrm_extract.rrm.eie import PUBLISHED

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_table_as_text_json_and_markdown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eie_table, "PUBLISHED", PUBLISHED[2:9:5])  # two small layers
    values, page = tmp_path / "out/table.json", tmp_path / "out/table.md"
    eie_table.main(
        ["--seed", "3", "--repeats", "2", "--json", str(values), "--markdown", str(page)]
    )
    printed = capsys.readouterr().out
    written = json.loads(values.read_text(encoding="utf-8"))
    assert [record["name"] for record in written["layers"]] == ["Alex-8", "NT-Wd"]
    assert (written["seed"], written["repeats"]) == (3, 2)
    far, near = written["layers"]
    assert far["theoretical_deviation"] == pytest.approx(far["ours"]["theoretical_us"] / 8.9 - 1)
    assert (far["theoretical_agrees"], near["theoretical_agrees"]) == (False, True)
    assert f"{far['theoretical_deviation']:+.1%} *" in printed
    text = page.read_text(encoding="utf-8")
    assert "--seed 3 --repeats 2" in text
    assert all(
        line.count("|") == len(eie_table.HEAD) + 1 for line in text.splitlines() if "|" in line
    )


def test_the_committed_table_is_that_of_the_published_layers() -> None:
    written = json.loads((RESULTS / "eie_table.json").read_text(encoding="utf-8"))
    assert [record["name"] for record in written["layers"]] == [row.name for row in PUBLISHED]
    page = (RESULTS / "eie_table.md").read_text(encoding="utf-8")
    for record in written["layers"]:
        assert " | ".join(eie_table.row_of(record)).replace(" *", r" \*") in page


@pytest.mark.parametrize("wrong", [["--seed", "-1"], ["--repeats", "1"]])
def test_wrong_numbers_fail(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        eie_table.main(wrong)
    assert stopped.value.code == 2
    assert "at least" in capsys.readouterr().err
