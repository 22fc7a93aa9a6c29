"""Says so where figures of deltas are those of a few frames only."""

from __future__ import annotations

__all__ = ["delta_frame_lines"]

FEW = 0.5
"""Share of frames with deltas below which it is said how few there are."""


def delta_frame_lines(frames: int, delta_frames: int) -> list[str]:
    """One line, or none.

    A frame that the native engine computed densely in every layer is a key frame, and has no part
    in the figures of deltas: what is left are the frames in which least changes.

    Args:
        frames: all frames.
        delta_frames: those that are no key frames.
    """
    if not 0 < delta_frames < FEW * frames:
        return []
    return [
        f"figures of deltas are of {delta_frames} of {frames} frames: the others are key frames, "
        "where chunks begin, at cuts, and where so much changes that every layer runs dense"
    ]
