"""Sparsity and speedup of detection (YOLOv2 and tiny YOLOv2), as in Table 6 of the paper.

    python scripts/table6_detection.py configs/youtube_bb.yaml \
        --models yolov2=yolov2.weights tiny_yolov2=yolov2-tiny.weights --thresholds 1e-4 1e-2 \
        --max-videos 50 --max-frames 240 --json table6.json --markdown table6.md --svg table6.svg

A row for each dataset, network and threshold. *Counted*: the sparsity of what layers would read
without the recurrence, and that of the deltas. *Theoretical*: ratios of MACs (Eq. 10), and what a
frame would take on EIE. *Measured*: frames/s of the native engine over those of OpenVINO and
PyTorch, the networks alone, in the same rounds, and beside it the relative error of the raw output.
They never share a column.

``--models darknet:FILE.cfg`` is any detector of Darknet's. ``--json`` keeps each row as it is
finished; the same command goes on there.
"""

from __future__ import annotations

from task_tables import make_task_table

NAME = "table6_detection"


def main() -> None:
    """Makes the rows that are missing, and the table."""
    make_task_table(
        __doc__,
        name=NAME,
        title="Table 6: detection",
        task="detect",
        models=("yolov2", "tiny_yolov2"),
    )


if __name__ == "__main__":
    main()
