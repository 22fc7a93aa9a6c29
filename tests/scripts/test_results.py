"""The pages of docs/results are what the scripts write from the figures beside them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import fig5_overhead
import pytest
import table2_sparsity
import table4_compressed
import table5_pose
import table6_detection
import table7_agreement
from timed_clips import batches_in_words, timed_in_words

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SCRIPTS = (
    table2_sparsity,
    table4_compressed,
    table5_pose,
    table6_detection,
    table7_agreement,
    fig5_overhead,
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.NAME)
def test_a_page_is_what_its_script_writes(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, page = RESULTS / f"{script.NAME}.json", tmp_path / "page.md"
    words = [f"{script.NAME}.py", "--from", str(source), "--markdown", str(page)]
    monkeypatch.setattr(sys, "argv", words)
    script.main()
    written = source.with_suffix(".md").read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8") == written


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([1, 8, 16], "at batches of 1, 8 and 16 frames, those of which a clip is a multiple."),
        ([1, 8], "at batches of 1 and 8 frames, those of which a clip is a multiple; larger ones"),
        ([1], "at batch 1 alone, though the engine takes several frames at a time; larger ones"),
        (None, "is not in the file."),
    ],
)
def test_a_page_says_which_batches_were_tried(batches: list[int] | None, words: str) -> None:
    settings = {} if batches is None else {"dense_batches": batches}
    assert words in batches_in_words(settings)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"a": 16}, {"b": 16}], "the first 16 frames of 1 clip of each dataset"),
        ([{"a": 96, "b": 80}, {"c": 96}], "the first 80 to 96 frames of 1 to 2 clips of each"),
        ([{"a": 48}, {}], "the first 48 frames of 0 to 1 clip of each dataset"),
        ([{}, {}], "no clips"),
    ],
)
def test_a_page_says_how_many_frames_were_timed(rows: list[dict[str, int]], words: str) -> None:
    assert timed_in_words(rows).startswith(words)
