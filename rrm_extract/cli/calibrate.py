"""``rrm-extract calibrate``: from a wanted error to thresholds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from rrm_extract.cli.options import TRIAL_OPTIONS, job_from, job_options
from rrm_extract.errors import ConfigError

__all__ = ["calibrate"]

OPTIONS = (*TRIAL_OPTIONS, "threshold", "target_error", "percentile")


@click.command(short_help="Find thresholds for an error, on sample clips.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@job_options(OPTIONS)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.json",
    help="File to write. Example: -o thresholds.json",
)
@click.option(
    "--clips",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Videos to look at, spread over all of them. Example: --clips 4",
)
@click.option(
    "--frames",
    type=click.IntRange(min=8),
    default=48,
    show_default=True,
    help="Sampled frames of each, of its middle chunk, and at most that. Example: --frames 96",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="With the policy paper: draw the fit; needs matplotlib. Example: --plot fit.svg",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a plot that exists, as a calibration is anyway. Example: --overwrite",
)
def calibrate(
    inputs: tuple[str, ...],
    output: Path,
    clips: int,
    frames: int,
    plot: Path | None,
    overwrite: bool,
    **values: Any,
) -> int:
    """Find what keeps an error, on a few stretches of some of the videos.

    \b
    rrm-extract calibrate videos/ --model resnet18 --target-error 0.01 -o thresholds.json
    rrm-extract videos/ --model resnet18 --thresholds thresholds.json -o feats.h5

    With --policy paper the file has the polynomial of the paper's accumulated-error control, for
    one --threshold:

    \b
    rrm-extract calibrate videos/ --policy paper --threshold 1e-2 -o aecs.json
    rrm-extract videos/ --policy paper --threshold 1e-2 --aecs aecs.json --error-limit 0.05 -o f.h5
    """
    from rrm_extract.jobs.calibrate import check_output, run_calibration
    from rrm_extract.report.calibration import calibration_text

    config = job_from(inputs, values)
    if config.policy != "paper" and config.target_error is None:
        raise ConfigError(
            "calibrate needs an aim; expected --target-error NUMBER, or --policy paper"
        )
    if plot is not None and config.policy != "paper":
        raise ConfigError("--plot draws the fit of --policy paper; leave it away here")
    if plot is not None and os.path.realpath(plot) == os.path.realpath(output):
        raise ConfigError(f"--plot and -o are both {output}; give --plot another name")
    check_output(output)
    calibration = run_calibration(
        config,
        output,
        clips=clips,
        frames=frames,
        plot=plot,
        overwrite=overwrite,
        say=lambda text: click.echo(text, err=True),
    )
    click.echo(calibration_text(calibration, output))
    return 0
