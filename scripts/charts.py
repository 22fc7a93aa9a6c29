"""What the charts have in common."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Any

from benchmarking import require

__all__ = ["caption", "new_figure", "save_svg"]

_NAME_WIDTH = 22


def caption(name: str) -> str:
    """A file's name for a narrow place: without its extension, broken at underscores."""
    words = Path(name).stem.replace("_", " ")
    return "\n".join(wrap(words, _NAME_WIDTH)).replace(" ", "_")


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of a size in inches."""
    return require("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def save_svg(figure: Any, path: Path) -> None:
    """Writes a figure; the same figures give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with require("matplotlib").rc_context({"svg.hashsalt": "rrm-extract"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
