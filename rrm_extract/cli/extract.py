"""``rrm-extract extract`` and ``rrm-extract run``: the main job."""

from __future__ import annotations

from typing import Any

import click

from rrm_extract.cli.options import job_from, job_options
from rrm_extract.config import JobConfig, load_job
from rrm_extract.errors import ConfigError, StoreError

__all__ = ["extract", "run"]


@click.command(short_help="Extract features of videos (the default command).")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@job_options()
def extract(inputs: tuple[str, ...], **values: Any) -> int:
    """Extract features of videos into one HDF5 file.

    INPUTS are video files, folders (searched recursively), globs, or .txt and .csv lists.
    Interrupted at any moment, the same command goes on where it was.

    \b
    rrm-extract videos/ --model resnet18 --threshold 1e-4 -o feats.h5
    rrm-extract 'videos/**/*.avi' --weights random:0 --fps native -o native.h5
    """
    return _run(job_from(inputs, values))


@click.command(short_help="Run the job that a YAML file describes.")
@click.argument("job", type=click.Path(), metavar="JOB.yaml")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one key of the job; can be repeated. Example: --set threshold=1e-3",
)
def run(job: str, overrides: tuple[str, ...]) -> int:
    """Run the job that a YAML file describes. Its keys are the options of "extract".

    \b
    rrm-extract run configs/ucf101.yaml --set threshold=1e-3
    """
    config = load_job(job, overrides)
    if config.output is None:
        raise ConfigError(f"{job}: no key 'output'; add it, or give --set output=FILE.h5")
    try:
        return _run(config)
    except StoreError as error:
        if "--overwrite" in str(error) or " -o" in str(error):
            error.args = (f"{error} (here: --set overwrite=true, --set output=FILE.h5)",)
        raise


def _run(config: JobConfig) -> int:
    try:
        # Here, as in other commands: importing torch takes seconds, and --help needs none of it.
        from rrm_extract.jobs import run_job
        from rrm_extract.report.summary import summary_text

        summary = run_job(config)
    except KeyboardInterrupt as interrupt:
        msg = "finished videos are kept, the same command goes on"
        raise KeyboardInterrupt(msg) from interrupt
    click.echo(summary_text(summary))
    return summary.exit_code
