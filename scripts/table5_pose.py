"""Sparsity and speedup of pose estimation (rt-Pose), as in Table 5 of the paper.

    python scripts/table5_pose.py configs/bbc_pose.yaml configs/mpii_video_pose.yaml \
        --models rtpose=pose_iter_440000.caffemodel --thresholds 1e-4 1e-2 --max-frames 240 \
        --json table5.json --markdown table5.md --svg table5.svg

A row for each dataset, network and threshold. *Counted*: the sparsity of what layers would read
without the recurrence, and that of the deltas. *Theoretical*: ratios of MACs (Eq. 10), and what a
frame would take on EIE. *Measured*: frames/s of the native engine over those of OpenVINO and
PyTorch, the networks alone, in the same rounds, and beside it the relative error of the raw output.
They never share a column.

The network has 136 G MACs a frame at its own size; ``--preprocess letterbox=184`` has a quarter.
``--json`` keeps each row as it is finished; the same command goes on there.
"""

from __future__ import annotations

from task_tables import make_task_table

NAME = "table5_pose"


def main() -> None:
    """Makes the rows that are missing, and the table."""
    make_task_table(
        __doc__,
        name=NAME,
        title="Table 5: pose estimation",
        task="pose",
        models=("rtpose",),
    )


if __name__ == "__main__":
    main()
