"""A table of the paper as a page: what is theoretical and what was measured says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarking import counted
from table_rows import Record

__all__ = [
    "NOT_TRAINED",
    "Column",
    "broken_videos",
    "key_columns",
    "shown",
    "table_page",
    "videos_column",
    "weights_column",
    "weights_of_row",
    "weights_text",
]

NOT_TRAINED = "not trained"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        title: its name, without its kind.
        cell: what stands in it, from a row.
        kind: "counted" is a share of numbers that are zero; "theoretical" follows from such counts,
            as in the paper; "measured" comes from seconds, or from the difference of two results;
            empty for what a row is about.
    """

    title: str
    cell: Callable[[Record], str]
    kind: Literal["", "counted", "theoretical", "measured"] = ""

    @property
    def head(self) -> str:
        """The title with its kind."""
        return f"{self.title} ({self.kind})" if self.kind else self.title


def shown(value: float | None, form: str = ".2f") -> str:
    """A number in a cell; "-" for one that does not exist."""
    return "-" if value is None else format(value, form)


def weights_text(weights_id: str, *, generated: bool = False) -> str:
    """Which weights a row was made with; generated ones are called so.

    Args:
        weights_id: as a model has it; of "random:SEED", and of what was made from such weights and
            says so, it is known.
        generated: for a file of which the caller knows it.
    """
    random = weights_id == "random" or re.search(r"\brandom:\d", weights_id) is not None
    return f"{weights_id}: {NOT_TRAINED}" if generated or random else weights_id


def weights_of_row(row: Record) -> str:
    """The same of a row's ``weights``, and ``weights_generated`` if it has that."""
    return weights_text(row["weights"], generated=row.get("weights_generated", False))


def key_columns(*names: str) -> list[Column]:
    """Columns with what a row's key says."""

    def column(name: str) -> Column:
        return Column(title=name, cell=lambda row: str(row["key"][name]))

    return [column(name) for name in names]


def weights_column() -> Column:
    """Which weights; every table has it."""
    return Column(title="weights", cell=weights_of_row)


def videos_column() -> Column:
    """How many videos and frames a row is made from, and how many were broken."""

    def cell(row: Record) -> str:
        broken = len(row["videos_broken"])
        text = f"{row['videos_used']:,}, {counted(row['frames'], 'frame')}"
        return f"{text}; {broken} broken" if broken else text

    return Column(title="videos", cell=cell)


def broken_videos(rows: Iterable[Record]) -> list[str]:
    """A line for each broken video; one that several rows met counts once."""
    lines = {
        f"{row['key'].get('dataset', '')}: {video['error']}": None
        for row in rows
        for video in row["videos_broken"]
    }
    return list(lines)


def table_page(
    result: Record, columns: Sequence[Column], *, title: str, notes: Sequence[str]
) -> str:
    """A page of Markdown.

    Args:
        result: of a RowFile; its ``remarks`` stand before the table.
        columns: of the table.
        title: of the page.
        notes: what the columns mean, a sentence or two each.
    """
    rows = result["rows"]
    about = list(notes)
    if any(NOT_TRAINED in weights_of_row(row) for row in rows):
        about.append(
            f"Weights called *{NOT_TRAINED}* are generated: what they show is the architecture's, "
            "not a trained network's."
        )
    broken = broken_videos(rows)
    lines = [f"# {title}", ""]
    if result.get("command"):
        lines += ["Made by", "", f"    {result['command']}", ""]
    for remark in result.get("remarks", []):
        lines += [remark, ""]
    lines += [
        markdown_row(column.head for column in columns),
        markdown_row("---" for _ in columns),
        *(markdown_row(column.cell(row) for column in columns) for row in rows),
        "",
        *(f"- {note}" for note in about),
        f"- {_machine(result)}",
    ]
    if broken:
        lines += ["", f"Broken, and not counted: {counted(len(broken), 'video')}.", ""]
        lines += [f"- {line}" for line in broken]
    return "\n".join(lines) + "\n"


def markdown_row(cells: Iterable[str]) -> str:
    """Cells between bars."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _machine(result: Record) -> str:
    machine: dict[str, Any] = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    cores = f"{machine['cores']} usable cores" if machine.get("cores") else "cores unknown"
    return f"{machine.get('processor') or machine['architecture']}, {cores}; {versions}."
