"""``rrm-extract stats``: what was saved."""

from __future__ import annotations

import json
from pathlib import Path

import click

from rrm_extract.errors import ConfigError

__all__ = ["stats"]


@click.command(short_help="Show what was saved, layer by layer.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.h5")
@click.option("--video", metavar="ID", help="Only this video. Example: --video S/AB12C.mp4")
@click.option("--per-video", is_flag=True, help="Each video by itself. Example: --per-video --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON. Example: stats f.h5 --json")
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print one CSV row for each layer. Example: --csv"
)
def stats(file: Path, video: str | None, per_video: bool, as_json: bool, as_csv: bool) -> None:
    """Show the density of inputs and deltas for each layer, and the totals.

    All speedups shown are theoretical: ratios of multiply-accumulates, not of time.
    """
    from rrm_extract.report.stats import csv_text, read_stats

    if as_json and as_csv:
        raise ConfigError("--json and --csv were given together; expected one of them")
    if video is not None and per_video:
        raise ConfigError("--video and --per-video were given together; expected one of them")
    results = read_stats(file, video="*" if per_video else video)
    if as_json:
        values = [result.to_json() for result in results]
        click.echo(json.dumps(values if per_video else values[0], indent=2))
    elif as_csv:
        click.echo(csv_text(results, per_video=per_video), nl=False)
    else:
        click.echo("\n\n".join(result.to_text() for result in results))
