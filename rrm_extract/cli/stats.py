"""``rrm-extract stats``: what was saved."""

from __future__ import annotations

from pathlib import Path

import click

from rrm_extract.errors import ConfigError

__all__ = ["stats"]


@click.command(short_help="Show what was saved, layer by layer.")
@click.argument("file", type=click.Path(path_type=Path, readable=False), metavar="FILE.h5")
@click.option("--video", metavar="ID", help="Only this video. Example: --video S/AB12C.mp4")
@click.option("--per-video", is_flag=True, help="Each video by itself. Example: --per-video --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON. Example: stats f.h5 --json")
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print one CSV row for each layer. Example: --csv"
)
@click.option(
    "--eie",
    is_flag=True,
    help="Add modelled times on the EIE accelerator, at its peak. Example: stats f.h5 --eie",
)
@click.option(
    "--eie-cycles",
    is_flag=True,
    help="Simulate its cycles as well, which takes seconds. Example: --eie --eie-cycles",
)
@click.option(
    "--weight-density",
    metavar="X|FILE.json",
    help="Share of non-zero weights on EIE, 1 if not given, or a JSON object by layer. "
    "Example: --eie --weight-density 0.1",
)
def stats(
    file: Path,
    video: str | None,
    per_video: bool,
    as_json: bool,
    as_csv: bool,
    eie: bool,
    eie_cycles: bool,
    weight_density: str | None,
) -> None:
    """Show the density of inputs and deltas for each layer, and the totals.

    All speedups shown are theoretical: ratios of multiply-accumulates, not of time. Times on EIE
    (arXiv 1602.01528), hardware that skips zeros, come from a model of it.
    """
    from rrm_extract.report.eie import read_weight_density
    from rrm_extract.report.stats import (
        csv_pieces,
        json_pieces,
        read_stats,
        text_pieces,
        with_eie,
    )

    if as_json and as_csv:
        raise ConfigError("--json and --csv were given together; expected one of them")
    if video is not None and per_video:
        raise ConfigError("--video and --per-video were given together; expected one of them")
    if not eie and (eie_cycles or weight_density is not None):
        given = "--eie-cycles" if eie_cycles else "--weight-density"
        raise ConfigError(f"{given} was given without --eie; expected both, or neither")
    results = read_stats(file, video="*" if per_video else video)
    if eie:
        density = 1.0 if weight_density is None else read_weight_density(weight_density)
        results = with_eie(results, weight_density=density, cycles=eie_cycles)
    if as_json:
        pieces = json_pieces(results, per_video=per_video)
    elif as_csv:
        pieces = csv_pieces(results, per_video=per_video)
    else:
        pieces = text_pieces(results)
    for piece in pieces:
        click.echo(piece, nl=False)
