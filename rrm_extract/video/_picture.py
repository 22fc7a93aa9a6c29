"""From a decoded frame to an upright RGB picture."""

from __future__ import annotations

from math import atan2, hypot, pi
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import Colorspace

if TYPE_CHECKING:
    import av


_KNOWN_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
"""Of ITU-T H.273, which swscale converts; it refuses a frame that names another."""

_UNSPECIFIED = 2
"""Of ITU-T H.273: the transfer, or the primaries, are not told; neither is converted here."""

_QUARTER_TURNS = {90: (0, -1, 1, 0), -90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), -180: (-1, 0, 0, -1)}


def to_upright_rgb(frame: av.VideoFrame) -> tuple[npt.NDArray[np.uint8], int]:
    """Convert a frame and turn it as the file asks for.

    The conversion is FFmpeg's (swscale through PyAV): the frame's own colour matrix and range
    where it names them, and swscale knows the matrix (not YCgCo or ICtCp); otherwise BT.601 and
    limited range, whatever the size of the picture. Grey is taken as full range.
    Chroma is scaled bilinearly, samples of more than 8 bits are reduced to 8, nothing is
    deinterlaced and pixels keep their shape. One thread converts.

    Turning follows FFmpeg's autorotate: quarter turns, and mirroring where the display matrix
    has it. Other angles are rounded to quarter turns. Where a frame also carries something that
    PyAV has no name for, Exif data say, its angle is known but no mirroring.

    Args:
        frame: A decoded frame of any pixel format.

    Returns:
        The picture, (H, W, 3) uint8, contiguous, of the frame's own size after turning; and the
        degrees by which it was turned counter-clockwise: 0, 90, 180 or -90.
    """
    # By default PyAV scales with a thread per processor, in every worker process.
    instead = None if frame.colorspace in _KNOWN_MATRICES else Colorspace.ITU601
    try:
        converted = frame.reformat(format="rgb24", threads=1, src_colorspace=instead)
    except OSError:  # PyAV 17 refuses frames that name a transfer or primaries unknown to swscale
        frame.color_trc = frame.color_primaries = _UNSPECIFIED
        converted = frame.reformat(format="rgb24", threads=1, src_colorspace=instead)
    image = np.asarray(converted.to_ndarray(), dtype=np.uint8)
    matrix = _display_matrix(frame)
    if matrix is None:
        return np.ascontiguousarray(image), 0
    a, b, c, d = matrix
    # Shown x = a x + c y, shown y = b x + d y, each up to a shift into the picture.
    if abs(a) + abs(d) >= abs(b) + abs(c):
        mirror_x, mirror_y = a < 0, d < 0
    else:
        image = image.swapaxes(0, 1)
        mirror_x, mirror_y = c < 0, b < 0
    image = image[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
    return np.ascontiguousarray(image), _quarter_turn(a, b, c, d)


def _quarter_turn(a: int, b: int, c: int, d: int) -> int:
    """The angle as FFmpeg's av_display_rotation_get gives it, to the nearest quarter."""
    scale_x, scale_y = hypot(a, c), hypot(b, d)
    if scale_x == 0 or scale_y == 0:
        return 0
    degrees = -90 * round(atan2(b / scale_y, a / scale_x) / (pi / 2))
    return 180 if degrees == -180 else degrees


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """The frame's linear map from stored (x, y) to shown positions, row vectors, as a, b, c, d."""
    # Not `frame.side_data`: the frame would keep that, which refers to the frame, and its pixels
    # would stay in memory until Python looks for cycles, which is some hundred frames later.
    side_data_of: Any = SideDataContainer  # PyAV's stubs do not know what it is made from
    try:
        data = side_data_of(frame)[SideDataType.DISPLAYMATRIX]
    except KeyError:
        return None
    except ValueError:
        # PyAV has no name for something else that the frame carries (which eye it is for, Exif).
        # It still tells the angle, though not whether the picture is mirrored.
        return _QUARTER_TURNS.get(round(frame.rotation / 90) * 90)
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), dtype=np.int32).tolist()
    if (a, b, c, d) == (0, 0, 0, 0):
        return None
    return a, b, c, d
