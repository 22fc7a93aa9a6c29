"""Thresholds against speedup and accuracy, as in Table 3 of the paper.

    python scripts/table3_thresholds.py --videos UCF-101 --labels ucfTrainTestlist \
        --model vgg16 --thresholds 1e-4 1e-3 1e-2 1e-1 --workers 2 --work work/vgg16 \
        --json table3.json --markdown table3.md

Each threshold is a real extraction of the test videos; the dense network in PyTorch computes all
videos once. Both keep a feature file in ``--work``, and the same command goes on where it was. The
classifier (see ``action_recognition.py``) learns from the dense network's features and is asked
about those of each threshold. Without ``--labels`` there is no accuracy, and all videos count.

Two columns of speedup, which must not be mixed up. *Theoretical*: multiply-accumulates of the
dense network over those done, key frames included. *Wall-clock*: seconds that the dense network
took in PyTorch (fp32, channels_last, batches of 16) over those that the recurrent one took, the
networks alone on the same cores; nothing else should run meanwhile. The first row is the dense
network; threshold 0 is exact too, but not the same program. ``feature error`` is the relative L2
distance of a frame's feature to the dense one.

``--aecs``, with a calibration for each threshold, and ``--error-limit`` turn on accumulated error
control.
"""

from __future__ import annotations

import argparse

from benchmarking import save_text
from sweep_options import add_sweep_options, error_controls, markdown, run_sweep
from threshold_sweep import Point, shown_threshold

THRESHOLDS = (1e-4, 1e-3, 1e-2, 1e-1)


def main() -> None:
    """Computes what is missing, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_sweep_options(parser, thresholds=THRESHOLDS)
    arguments = parser.parse_args()
    controls = error_controls(arguments)
    missing = [value for value in arguments.thresholds if controls and value not in controls]
    if missing:
        made = shown_threshold(missing[0])
        parser.error(f"no --aecs FILE is for threshold {made}; rrm-extract calibrate makes one")
    points = [Point(threshold=value, control=controls.get(value)) for value in arguments.thresholds]
    table = markdown(run_sweep(arguments, points))
    print(table)
    if arguments.markdown is not None:
        save_text(table + "\n", arguments.markdown)


if __name__ == "__main__":
    main()
