"""What was saved, layer by layer, read from a feature file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from rrm_extract.errors import InputError
from rrm_extract.jobs.control import EVENTS
from rrm_extract.jsonable import without_nan
from rrm_extract.printable import printable
from rrm_extract.report.audit import audit_lines, audit_measures
from rrm_extract.report.delta_frames import delta_frame_lines
from rrm_extract.report.eie import EieModel, eie_csv_names, model_on_eie
from rrm_extract.report.found import found_lines, found_measures
from rrm_extract.report.setting import stored_setting_text, stored_threshold
from rrm_extract.report.table import number, table
from rrm_extract.rrm.cost import (
    Channels,
    LayerCost,
    complexity,
    dense_complexity,
    overall_density,
    overall_sparsity,
    theoretical_speedup,
    theoretical_speedup_over_sparse_input,
)
from rrm_extract.store import FeatureFile, VideoFeatures

__all__ = ["Stats", "csv_pieces", "json_pieces", "read_stats", "text_pieces", "with_eie"]


_LAYER_COLUMNS = {
    *("name", "macs", "input_elements", "output_elements", "density", "density_delta"),
}
"""What the figures of layers are made of; a file has all of them, or none counts."""

_CHANNEL_COLUMNS = ("in_channels", "out_channels", "groups")
"""Of a layer's channels; files of earlier versions have none."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Measures of some videos of a feature file.

    Attributes:
        video_id: the one video, None for all of them.
        file, model, weights, policy: what made the features.
        threshold: that they were made with, see
            :func:`rrm_extract.report.setting.stored_threshold`.
        target_error, percentile: what the thresholds were calibrated and steered for; None where
            there was no target.
        error_limit: at which the accumulated-error control began anew; None where there was none.
        videos, frames, delta_frames: counts; delta frames are those that were not key frames.
        failures: (video id, message) of what failed or is partial.
        layers: means over frames; densities of the delta over delta frames.
        work: mean share of the dense MACs over all frames, key frames counting in full.
        audit: what is known of the features' errors, see
            :func:`rrm_extract.report.audit.audit_measures`.
        found: objects or people, see :func:`rrm_extract.report.found.found_measures`; None where
            there are features.
        eie: modelled times on EIE, where they were asked for.
    """

    file: str
    video_id: str | None
    model: str
    weights: str
    threshold: str
    policy: str
    videos: int
    frames: int
    delta_frames: int
    failures: tuple[tuple[str, str], ...]
    layers: tuple[LayerCost, ...]
    work: float
    audit: Mapping[str, Any]
    target_error: float | None = None
    percentile: float | None = None
    error_limit: float | None = None
    found: Mapping[str, Any] | None = None
    eie: EieModel | None = None

    def totals(self) -> dict[str, float]:
        """Measures of the whole network."""
        return {
            "density": overall_density(self.layers, of="input"),
            "density_delta": overall_density(self.layers),
            "sparsity_macs": overall_sparsity(self.layers),
            "sparsity_elements": overall_sparsity(self.layers, weight="elements"),
            "complexity_dense": sum(dense_complexity(layer) for layer in self.layers),
            "complexity": sum(complexity(layer) for layer in self.layers),
            "speedup_theoretical": 1.0 / self.work if self.work else math.nan,
            "speedup_theoretical_delta_frames": theoretical_speedup(self.layers),
            "speedup_theoretical_over_sparse_input": theoretical_speedup_over_sparse_input(
                self.layers
            ),
            "work": self.work,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, with None for what does not exist."""
        values = {**asdict(self), "totals": self.totals()}
        values["layers"] = [
            {**asdict(layer), "speedup_theoretical": theoretical_speedup((layer,))}
            for layer in self.layers
        ]
        if self.found is None:
            del values["found"]
        if self.eie is None:
            del values["eie"]
        else:
            values["eie"] = self.eie.to_json()
        cleaned: dict[str, Any] = without_nan(values)
        return cleaned

    def to_text(self) -> str:
        """A table of layers and the totals, for a person."""
        rows = [
            [
                layer.name,
                number(layer.macs / 1e6, 1),
                number(layer.density),
                number(layer.density_delta),
                number(theoretical_speedup((layer,)), 2),
            ]
            for layer in self.layers
        ]
        totals = self.totals()
        head = ["layer", "MMACs", "density", "delta density", "theoretical speedup"]
        lines = [
            printable(f"{self.file}{'' if self.video_id is None else ' ' + self.video_id}")
            + f": {self.model}, weights {self.weights}, "
            + stored_setting_text(
                self.threshold,
                self.policy,
                target_error=self.target_error,
                percentile=self.percentile,
                error_limit=self.error_limit,
            ),
            f"{self.videos} video{'' if self.videos == 1 else 's'}, {self.frames} frames, "
            f"{self.frames - self.delta_frames} of them key frames",
            *found_lines(self.found),
            "",
            table(head, rows),
            "",
            f"overall sparsity of the deltas (Eq. 9)   {number(totals['sparsity_macs'])} by MACs, "
            f"{number(totals['sparsity_elements'])} by elements",
            f"sparsity of the plain inputs             {number(1 - totals['density'])} by MACs",
            f"operations per delta frame (Eq. 6)       {number(totals['complexity'] / 1e6, 1)} M "
            f"of {number(totals['complexity_dense'] / 1e6, 1)} M dense",
            f"theoretical speedup (Eq. 10)             {number(totals['speedup_theoretical'], 2)} "
            "over the dense network, key frames included; "
            f"{number(totals['speedup_theoretical_delta_frames'], 2)} on delta frames; "
            f"{number(totals['speedup_theoretical_over_sparse_input'], 2)} over hardware that "
            "skips the zeros of plain inputs",
            *delta_frame_lines(self.frames, self.delta_frames),
        ]
        if self.eie is not None:
            lines += ["", self.eie.to_text()]
        if known := audit_lines(self.audit):
            lines += ["", *known]
        if self.failures:
            lines += ["", f"{len(self.failures)} failed or partial:"]
            lines += [printable(f"  {name}: {message}") for name, message in self.failures]
        return "\n".join(lines)


def text_pieces(results: Iterable[Stats]) -> Iterator[str]:
    """Everything for a person, piece by piece, so that only one result is in memory at a time."""
    between = ""
    for result in results:
        yield between + result.to_text()
        between = "\n\n"
    yield "\n"


def json_pieces(results: Iterable[Stats], *, per_video: bool) -> Iterator[str]:
    """Likewise an object, or a list of them if there are several videos."""
    between, end = ("[\n  ", "[]\n") if per_video else ("", "\n")
    for result in results:
        text = json.dumps(result.to_json(), indent=2)
        # Only what stands between values is indented: JSON has no line ends within strings.
        yield between + (text.replace("\n", "\n  ") if per_video else text)
        between, end = (",\n  ", "\n]\n") if per_video else ("", "\n")
    yield end


def csv_pieces(results: Iterable[Stats], *, per_video: bool) -> Iterator[str]:
    """Likewise one row for each layer, with the video's id in front if there are several videos."""
    head = ["layer", "macs", "input_elements", "output_elements", "density", "density_delta"]
    results = iter(results)
    first = list(islice(results, 1))
    names = eie_csv_names(next((result.eie for result in first), None))
    yield _csv_text(
        [[*(["video_id"] if per_video else []), *head, "speedup_theoretical", *names.values()]]
    )
    for result in chain(first, results):
        rows = []
        for number_of_layer, layer in enumerate(result.layers):
            row = [_cell(getattr(layer, name if name != "layer" else "name")) for name in head]
            front = [result.video_id] if per_video else []
            times = result.eie.layers[number_of_layer] if result.eie is not None else None
            more = [getattr(times, name) for name in names]
            rows.append([*front, *row, _cell(theoretical_speedup((layer,))), *map(_cell, more)])
        yield _csv_text(rows)


def _csv_text(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """The value, or nothing where there is no such number."""
    return "" if isinstance(value, float) and math.isnan(value) else value


def with_eie(
    results: Iterable[Stats],
    *,
    weight_density: float | Mapping[str, float] = 1.0,
    cycles: bool = False,
) -> Iterator[Stats]:
    """The same with times on EIE; see :func:`rrm_extract.report.eie.model_on_eie`.

    Raises:
        InputError: the file says nothing of its layers.
    """
    for result in results:
        if result.videos and not result.layers:
            msg = f"{result.file} has no columns of layers, of which EIE's times are made"
            raise InputError(msg)
        if result.failures and not result.videos:  # a video that failed has nothing to model
            yield result
            continue
        eie = model_on_eie(
            result.layers,
            frames=result.frames,
            delta_frames=result.delta_frames,
            weight_density=weight_density,
            cycles=cycles,
        )
        yield replace(result, eie=eie)


def read_stats(path: Path, *, video: str | None = None) -> Iterator[Stats]:
    """Statistics of a feature file, each read when it is asked for.

    Args:
        path: the file.
        video: None for all videos together, "*" for each one, or one video's id.

    Raises:
        StoreFormatError: not a feature file.
        InputError: there is no such video, or it failed and has no features.
    """
    with FeatureFile(path) as file:
        made = _made(file, path)
        failures = [(record.video_id, record.message) for record in file.failures]
        if video is None:
            yield _stats(file, list(file), only=None, failures=failures, made=made)
            return
        by_video: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for failure in failures:
            by_video[failure[0]].append(failure)

        def of(video_ids: Sequence[str], only: str) -> Stats:
            told = by_video.get(only, ())
            return _stats(file, video_ids, only=only, failures=told, made=made)

        if video == "*":
            yield from (of([name], name) for name in file)
            yield from (of([], name) for name, _ in failures if name not in file)
        elif video in file:
            yield of([video], video)
        elif video in by_video:
            _, message = by_video[video][0]
            raise InputError(f"{path} has no features of {video!r}, which failed: {message}")
        else:
            some = ", ".join(list(file)[:3]) or "none"
            msg = f"{path} has no video {video!r}; expected one of its {len(file)}: {some}"
            raise InputError(msg)


def _made(file: FeatureFile, path: Path) -> dict[str, Any]:
    """What the statistics of all videos of a file have in common, by field of :class:`Stats`."""
    attrs, identity = file.attrs, file.identity
    target = identity.get("target_error")
    return {
        "file": str(path),
        "model": str(attrs.get("model", "?")),
        "weights": str(attrs.get("weights_text", attrs.get("weights_id", "?"))),
        "threshold": stored_threshold(file),
        "policy": str(attrs.get("policy", "?")),
        "target_error": target,
        "percentile": None if target is None else identity.get("percentile"),
        "error_limit": identity.get("error_limit"),
    }


def _stats(
    file: FeatureFile,
    video_ids: Sequence[str],
    *,
    only: str | None,
    failures: Sequence[tuple[str, str]],
    made: Mapping[str, Any],
) -> Stats:
    """Statistics of some videos.

    Args:
        file: that has them.
        video_ids: which.
        only: the one video, also where there is nothing of it; None for all.
        failures: see :class:`Stats`.
        made: see :func:`_made`.
    """
    frames = delta_frames = 0
    work = 0.0
    density: Any = 0.0
    density_delta: Any = 0.0
    known: dict[str, list[Any]] = {"error": [np.empty(0)], "estimate": [np.empty(0)]}
    events: Counter[str] = Counter()
    # Of all videos alike: one network made them. Their columns may be left out (docs/format.md).
    columns = _layer_columns(file[video_ids[-1]]) if video_ids else {}
    has_layers = columns.keys() >= _LAYER_COLUMNS
    columns = columns if has_layers else {}
    for video_id in video_ids:
        video: VideoFeatures = file[video_id]
        is_key_frame = video.key_frame
        count, deltas = len(is_key_frame), int((~is_key_frame).sum())
        frames, delta_frames = frames + count, delta_frames + deltas
        work += float(np.sum(video.work, dtype=np.float64))
        if has_layers:
            density += np.nan_to_num(video.layer_column("density")) * count
            density_delta += np.nan_to_num(video.layer_column("density_delta")) * deltas
        for name, rows in video.audit.items():
            known[name].append(rows[~np.isnan(rows)])
        events.update({event: int(video.attr(f"n_{event}", 0)) for event in EVENTS})
    layers = tuple(
        LayerCost(
            name=str(name),
            macs=int(columns["macs"][i]),
            input_elements=int(columns["input_elements"][i]),
            output_elements=int(columns["output_elements"][i]),
            density=float(density[i]) / frames if frames else math.nan,
            density_delta=float(density_delta[i]) / delta_frames if delta_frames else math.nan,
            channels=_channels(columns, i),
        )
        for i, name in enumerate(columns.get("name", ()))
    )
    return Stats(
        **made,
        video_id=only,
        videos=len(video_ids),
        frames=frames,
        delta_frames=delta_frames,
        failures=tuple(failures),
        layers=layers,
        work=work / frames if frames else math.nan,
        audit=audit_measures(
            np.concatenate(known["error"]), np.concatenate(known["estimate"]), events
        ),
        found=found_measures(file, (file[video_id] for video_id in video_ids)),
    )


def _layer_columns(video: VideoFeatures) -> dict[str, Any]:
    """The columns of layers that figures are made of, (L,) each; none of (T, L), which are long."""
    columns = {}
    for name in (*_LAYER_COLUMNS, *_CHANNEL_COLUMNS):
        with suppress(KeyError):  # what the file does not have
            columns[name] = video.layer_column(name)
    return columns


def _channels(columns: Mapping[str, Any], layer: int) -> Channels | None:
    """A layer's channels; None in files of versions that did not write them."""
    if any(name not in columns for name in _CHANNEL_COLUMNS):
        return None
    return Channels(*(int(columns[name][layer]) for name in _CHANNEL_COLUMNS))
