"""Accuracy of action recognition on features, measured as the paper does.

    python scripts/action_recognition.py feats.h5 --labels datasets/ucfTrainTestlist --split 1
    python scripts/action_recognition.py feats.h5 --labels datasets/Charades
    python scripts/action_recognition.py dense.h5 --test-features rrm.h5 --labels folders

A video's feature is the mean over its frames, the classifier a network of two layers.
Labels are those of UCF-101 or Charades as published (a folder with their files), or
the folders that the videos lie in ("folders": a share of each class is for testing). For UCF-101
and folders it prints top-1 accuracy and its mean over classes, for Charades, where a video is of
many classes, the mean average precision (mAP).

Ids in the file may have folders before them, as in ``UCF-101/Archery/v_Archery_g01_c01.avi``: of a
published dataset only the file's name counts. Videos of one list that the file lacks, that failed
or that are partial are left out, counted and named; so are videos without a label.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from benchmarking import save_json
from labelled_features import all_ids, check_same_features, labelled_features, unlabelled
from recognition import Recogniser
from recognition_options import add_label_options, add_training_options, labels_of, training_of

from rrm_extract.errors import RrmError


def main() -> None:
    """Trains, tests, and prints the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("features", type=Path, metavar="FEATS.h5", help="to learn from, and to ask")
    parser.add_argument(
        "--test-features", type=Path, metavar="OTHER.h5", help="to ask about instead; same network"
    )
    add_label_options(parser, required=True)
    add_training_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    try:
        result, text = recognise(arguments)
    except RrmError as error:
        sys.exit(str(error))
    print(text)
    if arguments.json is not None:
        save_json(result, arguments.json)


def recognise(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The result for machines and for people.

    Raises:
        RrmError: a file, or its labels, cannot be used.
    """
    train_file: Path = arguments.features
    test_file: Path = arguments.test_features or train_file
    check_same_features(train_file, test_file)
    ids = all_ids(train_file, test_file)
    labels = labels_of(arguments, ids)
    keep = arguments.keep_partial
    train = labelled_features(train_file, labels, labels.train, keep_partial=keep)
    test = labelled_features(test_file, labels, labels.test, keep_partial=keep)
    training = training_of(arguments)
    accuracy = Recogniser(train, labels, training).accuracy(test)
    without_label = unlabelled(ids, labels)
    result = {
        "features": str(train_file),
        "test_features": str(test_file),
        "labels": labels.name,
        "accuracy": accuracy.to_json(),
        "train": train.coverage.to_json(),
        "test": test.coverage.to_json(),
        "unlabelled": without_label,
        "training": dataclasses.asdict(training),
    }
    lines = [
        f"{labels.name}, {len(labels.classes)} classes",
        f"learnt from {train_file}: {train.coverage.to_text()}",
        f"tested on {test_file}: {test.coverage.to_text()}",
        f"videos without a label: {len(without_label)}",
        accuracy.to_text(),
    ]
    return result, "\n".join(lines)


if __name__ == "__main__":
    main()
