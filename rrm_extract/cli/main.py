"""The entry point: commands, and what an error becomes."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click
from click_default_group import DefaultGroup

from rrm_extract import __version__
from rrm_extract.cli.calibrate import calibrate
from rrm_extract.cli.compress import compress
from rrm_extract.cli.export import export
from rrm_extract.cli.extract import extract, run
from rrm_extract.cli.models import models
from rrm_extract.cli.show import show
from rrm_extract.cli.stats import stats
from rrm_extract.cli.tune import tune
from rrm_extract.cli.verify import verify
from rrm_extract.errors import RrmError, StoreError, UsageError

__all__ = ["cli", "main"]

EXIT_FAILED, EXIT_USAGE, EXIT_OUTPUT, EXIT_INTERRUPTED = 1, 2, 3, 130


@click.group(
    cls=DefaultGroup,
    default="extract",
    default_if_no_args=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="rrm-extract")
def cli() -> None:
    """Per-frame CNN features of videos, computing only what changed between frames.

    \b
    rrm-extract videos/ --model resnet18 --threshold 1e-4 -o feats.h5
    rrm-extract stats feats.h5

    Without a command's name, "extract" is meant.
    Exit codes: 0 done, 1 some videos failed, 2 wrong usage, 3 output unusable, 130 interrupted.
    """


cli.add_command(extract)
cli.add_command(run)
cli.add_command(stats)
cli.add_command(verify)
cli.add_command(calibrate)
cli.add_command(tune)
cli.add_command(show)
cli.add_command(models)
cli.add_command(export)
cli.add_command(compress)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; None takes those of the process.

    Returns:
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may hold bytes that are no text; stderr is like this already.
        sys.stdout.reconfigure(errors="backslashreplace")
    # What a job scheduler sends: the same as Ctrl-C.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(args=arguments, prog_name="rrm-extract", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except UsageError as error:
        _complain(error)
        return EXIT_USAGE
    except StoreError as error:
        _complain(error)
        return EXIT_OUTPUT
    except RrmError as error:
        _complain(error)
        return EXIT_FAILED
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "rrm-extract: interrupted; finished videos are kept, the same command goes on", err=True
        )
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): not an error, and nothing left to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
    return code if isinstance(code, int) else 0


def _complain(error: RrmError) -> None:
    click.echo(f"rrm-extract: error: {error}", err=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
