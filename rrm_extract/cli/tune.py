"""``rrm-extract tune``: feature error against speed, to choose a threshold by eye."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rrm_extract.cli.options import TRIAL_OPTIONS, job_from, job_options
from rrm_extract.config import parse_threshold
from rrm_extract.errors import ConfigError

__all__ = ["tune"]

OPTIONS = (*TRIAL_OPTIONS, "cuts")

THRESHOLDS = "0,1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1"
"""From exact to far beyond what the features of trained networks bear."""


@click.command(short_help="Try thresholds on a clip: error against speed.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@job_options(OPTIONS)
@click.option(
    "--try",
    "thresholds",
    default=THRESHOLDS,
    show_default=True,
    metavar="NUMBERS",
    help="Thresholds, separated by commas; 0 is always among them. Example: --try 1e-3,1e-2",
)
@click.option(
    "--clips",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    metavar="N",
    help="Videos to look at, at most, spread over all of them. Example: --clips 1",
)
@click.option(
    "--frames",
    type=click.IntRange(min=4),
    default=96,
    show_default=True,
    metavar="N",
    help="Sampled frames of each, the first of its middle chunk and at most that chunk's. "
    "Example: --frames 48",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Rounds of timing, of which the median counts. Example: --repeats 5",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Draw it (.svg, .png or .pdf); needs matplotlib. Example: --plot tune.svg",
)
@click.option("--overwrite", is_flag=True, help="Replace a plot that exists. Example: --overwrite")
@click.option("--json", "as_json", is_flag=True, help="Print JSON. Example: tune clip.mp4 --json")
def tune(
    inputs: tuple[str, ...],
    thresholds: str,
    clips: int,
    frames: int,
    repeats: int,
    plot: Path | None,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Try some thresholds on a clip or a few: what each costs in accuracy and wins in time.

    \b
    rrm-extract tune videos/clip.mp4 --model resnet18
    rrm-extract tune videos/clip.mp4 --model resnet18 --try 1e-3,3e-3,1e-2 --plot tune.svg

    Times are taken on this machine while it runs: nothing else should run meanwhile.
    """
    config = job_from(inputs, values)
    wanted = _numbers(thresholds)
    if plot is not None:
        from rrm_extract.jobs.fit_plot import check_figure

        check_figure(plot, overwrite=overwrite)

    from rrm_extract.jobs.discover import discover
    from rrm_extract.jobs.recipe import all_notes, load_job_model, make_recipe, prepare_process
    from rrm_extract.jobs.samples import take_samples
    from rrm_extract.jobs.tuning import try_thresholds
    from rrm_extract.report.tuning import tuning_json, tuning_text
    from rrm_extract.report.tuning_plot import draw_tuning

    def say(text: str) -> None:
        click.echo(text, err=True)

    videos = discover(config.inputs, root=config.root, include=config.include)
    prepare_process(config.threads)
    model = load_job_model(config)
    recipe = make_recipe(model, config)
    if recipe.engine == "native" and config.threads > 1:
        raise ConfigError(
            f"--threads {config.threads}: the native engine has one thread, and is timed beside "
            "PyTorch with as many; leave --threads away, or give --engine torch"
        )
    for note in all_notes(model, recipe):
        say(note)
    samples = take_samples(videos, config, recipe, clips=clips, frames=frames, say=say)
    tuning = try_thresholds(recipe, samples, wanted, repeats=repeats, say=say)
    made_by = {"engine": recipe.engine, "weights": model.weights_text}
    if as_json:
        result = tuning_json(tuning, config, **made_by)
        click.echo(json.dumps(result, indent=2, allow_nan=False))
    else:
        click.echo(tuning_text(tuning, config, **made_by))
    if plot is not None:
        draw_tuning(tuning, config, plot, **made_by)
    return 0


def _numbers(text: str) -> list[float]:
    try:
        numbers = [parse_threshold(part) for part in text.split(",")]
    except ConfigError:
        numbers = []
    if not numbers or not all(isinstance(number, float) for number in numbers):
        raise ConfigError(
            f"--try is {text!r}, expected numbers of 0 or more separated by commas, for example "
            "1e-3,1e-2"
        )
    return [number for number in numbers if isinstance(number, float)]
