"""What the charts have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from benchmarking import require
from table_page import NOT_TRAINED, weights_text

__all__ = ["caption", "grouped_bars", "legend_below", "network_titles", "new_figure", "save_svg"]

_NAME_WIDTH = 22


def caption(name: str) -> str:
    """A file's name for a narrow place: without its extension, broken at underscores."""
    words = Path(name).stem.replace("_", " ")
    return "\n".join(wrap(words, _NAME_WIDTH)).replace(" ", "_")


def network_titles(
    networks: Iterable[tuple[str, str]], *, shown: Callable[[str], str] = str
) -> dict[tuple[str, str], str]:
    """What stands above the bars or curves of each network, given as its name and its weights.

    Of generated weights it says so; weights are named where there are several of one network.
    """
    networks = list(dict.fromkeys(networks))
    several = Counter(model for model, _ in networks)
    titles = {}
    for model, weights in networks:
        generated = f" ({NOT_TRAINED})" if NOT_TRAINED in weights_text(weights) else ""
        named = f", {weights}" if several[model] > 1 else ""
        titles[model, weights] = f"{shown(model)}{generated}{named}"
    return titles


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of a size in inches."""
    return require("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def save_svg(figure: Any, path: Path) -> None:
    """Writes a figure; the same figures give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with require("matplotlib").rc_context({"svg.hashsalt": "rrm-extract"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def grouped_bars(
    axes: Any,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    hatched: Collection[str] = (),
    colors: Mapping[str, str] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Upright bars side by side, a group of one of each series.

    Args:
        axes: of matplotlib.
        groups: what stands below each group.
        series: by name, the height in each group; None leaves a gap.
        hatched: series that are to be told apart, such as theoretical ones beside measured ones.
        colors: of series; those that are not named get one of matplotlib's, in order.
        labels: of series, what stands above the bar in each group.
    """
    width = 0.85 / max(1, len(series))
    for number, (name, values) in enumerate(series.items()):
        left = (number - (len(series) - 1) / 2) * width
        places = [place + left for place, value in enumerate(values) if value is not None]
        heights = [value for value in values if value is not None]
        look: dict[str, Any] = {"hatch": "////"} if name in hatched else {}
        if colors is not None and name in colors:
            look["color"] = colors[name]
        bars = axes.bar(
            places, heights, width=width, label=name, edgecolor="white", linewidth=0.4, **look
        )
        if labels is not None and name in labels:
            words = zip(labels[name], values, strict=True)
            above = [word for word, value in words if value is not None]
            axes.bar_label(bars, above, rotation=90, padding=2, fontsize="x-small")
    axes.set_xticks(range(len(groups)), [caption(name) for name in groups], fontsize="small")
    axes.tick_params(axis="y", labelsize="x-small")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def legend_below(figure: Any, *, columns: int) -> None:
    """One legend for all panels, each label once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns,
        frameon=False, fontsize="small",
    )  # fmt: skip
