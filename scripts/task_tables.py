"""What the tables of pose and of detection have in common: sparsity and speed of raw outputs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from network_bench import PACKAGES, Plan
from sparsity import Sparsity
from subjects import Subject
from sweep_options import threshold_number
from table2_sparsity import (
    NOTES,
    Networks,
    clips_of,
    columns_of,
    counted_values,
    draw,
    fill,
    settings_in_words,
)
from table_page import Column, shown, table_page
from table_rows import Record
from tables import add_model_options, run_table, table_parser
from task_networks import INPUT_HELP, Task, load_task_network
from timed_clips import add_measuring_options, measuring_settings, timing_plan

from rrm_extract.report.eie import model_on_eie

__all__ = ["make_task_table"]

THRESHOLDS = (0.0, 1e-4, 1e-2)

EIE_NOTE = (
    "EIE: milliseconds that a frame would take on that accelerator, its cycles counted, with zeros "
    "of plain inputs skipped and with those of deltas (frames that are no key frames). All weights "
    "count as non-zero. A model, nothing that was measured."
)


def make_task_table(
    description: str | None, *, name: str, title: str, task: Task, models: Sequence[str]
) -> None:
    """Makes the rows that are missing, and the table.

    Args:
        description: of the script.
        name: of the script, without ".py".
        title: of the page.
        task: what the networks find.
        models: by default.
    """
    parser = table_parser(description)
    add_model_options(parser, models=models, preprocess=INPUT_HELP)
    parser.add_argument(
        "--thresholds", nargs="+", type=threshold_number, default=list(THRESHOLDS), metavar="X"
    )
    add_measuring_options(parser)
    # These networks take up to seconds for a frame.
    parser.set_defaults(timed_frames=16, repeats=3)
    options = parser.parse_args()
    run_table(
        options,
        name=name,
        packages=PACKAGES,
        settings={**measuring_settings(options), "preprocess": options.preprocess},
        fill=partial(
            fill,
            options,
            networks=partial(Networks, load=partial(_load, task), plan=_plan, values=_values),
        ),
        page=partial(_page, title),
        draw=draw,
    )


def _load(task: Task, spec: str, options: argparse.Namespace, *, fps: str) -> Subject:
    return load_task_network(spec, options, fps=fps, task=task).subject


def _plan(options: argparse.Namespace, thresholds: Sequence[float]) -> Plan:
    """Short trials: a single batch of these networks is work enough to tell settings apart."""
    plan = timing_plan(options, thresholds)
    return replace(plan, trial_frames=1, trial_rounds=1, wake=1)


def _values(sparsity: Sparsity) -> Record:
    model = model_on_eie(
        sparsity.layers,
        frames=sparsity.frames,
        delta_frames=sparsity.frames - sparsity.key_frames,
        cycles=True,
    )
    totals = model.totals()
    return {
        **counted_values(sparsity),
        "eie_ms_input": totals["simulated_us_input"] / 1e3,
        "eie_ms_delta": totals["simulated_us_delta"] / 1e3,
    }


def _page(title: str, result: Record) -> str:
    preprocess = result["settings"]["preprocess"]
    return table_page(
        result,
        _columns(result),
        title=title,
        notes=[
            *NOTES,
            EIE_NOTE,
            "The feature is the network's raw output, whole.",
            *([f"Networks' input: {preprocess}."] if preprocess else []),
            settings_in_words(result["settings"], clips_of(result["rows"])),
        ],
    )


def _columns(result: Record) -> list[Column]:
    columns = columns_of(result)
    eie = Column(
        title="EIE, ms a frame: inputs, deltas",
        cell=lambda row: (
            f"{shown(row['eie_ms_input'], '.1f')}, {shown(row['eie_ms_delta'], '.1f')}"
        ),
        kind="theoretical",
    )
    last = max(number for number, column in enumerate(columns) if column.kind == "theoretical")
    return [*columns[: last + 1], eie, *columns[last + 1 :]]
