"""The entry point: commands, and what an error becomes."""

from __future__ import annotations

import signal
import sys
import time
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
from rrm_extract.cli.output import checked_output
from rrm_extract.cli.show import show
from rrm_extract.cli.stats import stats
from rrm_extract.cli.tune import tune
from rrm_extract.cli.verify import verify
from rrm_extract.errors import RrmError, StoreError, UsageError

__all__ = ["cli", "main"]

EXIT_FAILED, EXIT_USAGE, EXIT_OUTPUT, EXIT_INTERRUPTED = 1, 2, 3, 130

TIDYING_SECONDS = 3.0
"""How long after an interrupt another one is not heard: it would leave things half tidied."""


class _Commands(DefaultGroup):  # type: ignore[misc]  # it has no types
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What is neither a command nor, as a whole, one of our options is for the default one.

        Else our options are looked for in it, and found: the -h of "-dash.mp4".
        """
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0] not in own.union(self.commands):
            args = [self.default_cmd_name, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


@click.group(
    cls=_Commands,
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
    with checked_output():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    interrupts = _Interrupts()
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
    except (KeyboardInterrupt, click.Abort) as interrupt:
        if isinstance(interrupt.__cause__, EOFError):  # which click takes for Ctrl-D
            raise interrupt.__cause__ from None
        if arguments is None:  # the process ends
            interrupts.ignore()
        # Click has put its own in the place of the one that knows what is kept.
        kept = str(interrupt.__cause__ or interrupt)
        click.echo("; ".join(filter(None, ["rrm-extract: interrupted", kept])), err=True)
        return EXIT_INTERRUPTED
    finally:
        interrupts.leave()
    return code if isinstance(code, int) else 0


def _complain(error: RrmError) -> None:
    click.echo(f"rrm-extract: error: {error}", err=True)


class _Interrupts:
    """Handles Ctrl-C, and what a job scheduler sends in the same way."""

    def __init__(self) -> None:
        self._last = -TIDYING_SECONDS
        self._before = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._interrupt)}
        # Where it is ignored, as in what a shell runs in the background, it stays so.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)

    def ignore(self) -> None:
        """From now on: an interrupt that comes while Python ends would be the process's end."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        self._before.clear()

    def leave(self) -> None:
        """Puts back what was there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= TIDYING_SECONDS:
            self._last = now
            raise KeyboardInterrupt
