"""Options of the scripts that recognise actions: labels, and how the classifier is trained."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable

from classifier import Training
from label_specs import read_labels
from labels import Labels

__all__ = ["add_label_options", "add_training_options", "labels_of", "training_of", "whole_number"]


def add_label_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Where labels come from."""
    parser.add_argument(
        "--labels",
        required=required,
        metavar="SPEC",
        help="the folder ucfTrainTestlist, one with Charades' CSV files, or the word folders",
    )
    parser.add_argument(
        "--split", type=int, choices=(1, 2, 3), default=1, help="of UCF-101 (default: 1)"
    )
    parser.add_argument(
        "--test-share", type=float, default=0.3, metavar="X", help="of each folder (default: 0.3)"
    )
    parser.add_argument(
        "--keep-partial", action="store_true", help="take videos that end early for what they have"
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """How the classifier is trained."""
    for field in dataclasses.fields(Training):
        if field.name in ("hidden", "epochs"):
            parser.add_argument(
                f"--{field.name}", type=whole_number(1), default=field.default, metavar="N"
            )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="of the classifier, and of the split of folders",
    )


def labels_of(arguments: argparse.Namespace, video_ids: Iterable[str]) -> Labels:
    """What :func:`add_label_options` was given.

    Args:
        arguments: as parsed; ``labels`` is not None.
        video_ids: all there are.

    Raises:
        LabelError: there are no such labels, or they are not as published.
    """
    return read_labels(
        arguments.labels,
        video_ids,
        split=arguments.split,
        test_share=arguments.test_share,
        seed=arguments.seed,
    )


def training_of(arguments: argparse.Namespace) -> Training:
    """What :func:`add_training_options` was given."""
    return Training(hidden=arguments.hidden, epochs=arguments.epochs, seed=arguments.seed)


def whole_number(least: int) -> Callable[[str], int]:
    """A reader of numbers from ``least`` on, for argparse."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            msg = f"{text}: expected a whole number, {least} or more"
            raise argparse.ArgumentTypeError(msg)
        return number

    return read
