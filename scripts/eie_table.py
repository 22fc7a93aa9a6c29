"""Sets the table that the EIE paper publishes beside the same layers on our model of the machine.

    python scripts/eie_table.py [--seed 0] [--repeats 3]
        [--json docs/results/eie_table.json] [--markdown docs/results/eie_table.md]

The paper's layers are trained and pruned; ours are random matrices of the same sizes and densities,
several of each. The theoretical time is that of all entries, padding included, evenly over the PEs;
the actual time is simulated cycle by cycle. Nothing here is measured, and nothing was adjusted to
the published figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarking import save_json, say, versions

from rrm_extract.report.table import table
from rrm_extract.rrm.eie import (
    EIE,
    PUBLISHED,
    PublishedLayer,
    fitting_weight_density,
    reproduce,
    rounding_range,
)

THEORETICAL_WITHIN = 0.05
ACTUAL_WITHIN = 0.12
"""Relative deviations that count as agreement."""

HEAD = (
    "layer",
    "theoretical us, published",
    "ours",
    "deviation",
    "by rounding",
    "actual us, published",
    "ours",
    "deviation",
    "actual / theoretical, published",
    "ours",
    "fitting weight density",
)
NOTES = (
    f"Agreement: theoretical within {THEORETICAL_WITHIN:.0%}, actual within {ACTUAL_WITHIN:.0%}; "
    "what is beyond has a star.",
    "By rounding: theoretical times of all densities that round to the published ones.",
    "Actual / theoretical: what imbalance, queues and empty columns cost.",
    "Fitting weight density: with which a random matrix would take the published theoretical "
    "time; in brackets the published density.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it where it was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random matrices")
    parser.add_argument("--repeats", type=int, default=3, help="matrices for each layer")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args(arguments)
    if options.seed < 0 or options.repeats < 2:
        parser.error("--seed must be at least 0 and --repeats at least 2")
    records = [compared(layer, seed=options.seed, repeats=options.repeats) for layer in PUBLISHED]
    print("\n".join([table(HEAD, [row_of(record) for record in records]), "", *NOTES]))
    if options.json is not None:
        values = {
            "source": "arXiv 1602.01528, Tables III and IV",
            "kind": "modelled, not measured",
            "machine": asdict(EIE),
            "seed": options.seed,
            "repeats": options.repeats,
            "versions": versions(["numpy"]),
            "theoretical_within": THEORETICAL_WITHIN,
            "actual_within": ACTUAL_WITHIN,
            "layers": records,
        }
        save_json(values, options.json)
        say(f"written: {options.json}")
    if options.markdown is not None:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(markdown(records, options), encoding="utf-8")
        say(f"written: {options.markdown}")


def compared(layer: PublishedLayer, *, seed: int, repeats: int) -> dict[str, Any]:
    """A published layer, ours, and how far they are apart."""
    ours = reproduce(layer, seed=seed, repeats=repeats)
    low, high = rounding_range(layer)
    theoretical = ours.theoretical_us / layer.theoretical_us - 1
    actual = ours.actual_us / layer.actual_us - 1
    return {
        "name": layer.name,
        "published": asdict(layer),
        "ours": asdict(ours),
        "theoretical_deviation": theoretical,
        "actual_deviation": actual,
        "theoretical_agrees": abs(theoretical) <= THEORETICAL_WITHIN,
        "actual_agrees": abs(actual) <= ACTUAL_WITHIN,
        "theoretical_us_by_rounding": [low, high],
        "actual_to_theoretical_published": layer.actual_us / layer.theoretical_us,
        "actual_to_theoretical_ours": ours.actual_us / ours.theoretical_us,
        "fitting_weight_density": fitting_weight_density(layer),
    }


def row_of(record: dict[str, Any]) -> list[str]:
    """One row of the table."""
    published, ours = record["published"], record["ours"]
    low, high = record["theoretical_us_by_rounding"]
    return [
        record["name"],
        f"{published['theoretical_us']:.1f}",
        f"{ours['theoretical_us']:.1f}",
        f"{record['theoretical_deviation']:+.1%}{'' if record['theoretical_agrees'] else ' *'}",
        f"{low:.1f} to {high:.1f}",
        f"{published['actual_us']:.1f}",
        f"{ours['actual_us']:.1f}",
        f"{record['actual_deviation']:+.1%}{'' if record['actual_agrees'] else ' *'}",
        f"{record['actual_to_theoretical_published']:.2f}",
        f"{record['actual_to_theoretical_ours']:.2f}",
        f"{record['fitting_weight_density']:.1%} ({published['weight_density']:.0%})",
    ]


def markdown(records: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """The table as a page."""
    rows = [HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *(row_of(record) for record in records)]
    lines = [
        "# EIE's published table, and our model of the machine",
        "",
        "Times for a frame in microseconds, 64 PEs at 800 MHz; published: Tables III and IV of",
        "[arXiv 1602.01528](https://arxiv.org/abs/1602.01528). Ours are modelled, from random",
        "matrices of the published sizes and densities. [The model](../eie.md) says what is",
        "counted, and where the rows with a star may come from. Made by",
        "",
        f"    python scripts/eie_table.py --seed {options.seed} --repeats {options.repeats} \\",
        "        --json docs/results/eie_table.json --markdown docs/results/eie_table.md",
        "",
        *(f"| {' | '.join(row)} |".replace(" *", r" \*") for row in rows),
        "",
        *(f"- {note}" for note in NOTES),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
