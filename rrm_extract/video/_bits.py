"""Just enough of H.264, H.265 and MPEG-4 to know where decoding may start.

The key frame flag of a packet is not enough: an encoder with intra refresh, or a muxer,
also sets it where decoding starts only approximately, and AVI files carry it on packets
of one byte that hold no picture at all.
"""

from __future__ import annotations

from enum import IntEnum

_H264_SLICE = 1
_H264_IDR = 5
_H264_SEI = 6
_H264_RECOVERY_POINT = 6
_H264_INTRA_SLICES = (2, 4, 7, 9)
_H264_PARAMETERS = {7, 8}
_HEVC_IDR = (19, 20)
_HEVC_OTHER_IRAP = (16, 17, 18, 21)
_HEVC_PARAMETERS = {32, 33, 34}
_MPEG4_VOP = b"\x00\x00\x01\xb6"
_MPEG4_GOP = b"\x00\x00\x01\xb3"
_MPEG4_I, _MPEG4_B = 0, 2

_INTRA_CODECS = ("mjpeg", "png", "prores", "dnxhd", "dvvideo", "huffyuv", "ffvhuff", "rawvideo")
_CLOSED_CODECS = (*_INTRA_CODECS, "ffv1", "vp8", "vp9", "av1", "flv1", "h263", "wmv1", "wmv2")
_DECODERS = {"flv": "flv1", "libdav1d": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
_OPEN_CODECS = ("mpeg1video", "mpeg2video")


class Entry(IntEnum):
    """What decoding that starts at a packet gives."""

    NONE = 0
    """Nothing that can be relied on."""
    OPEN = 1
    """Every frame shown at or after it; frames decoded later but shown before it may be broken."""
    CLOSED = 2
    """Every later frame."""


class EntryFinder:
    """Grades the key frame packets of one stream.

    Args:
        codec: FFmpeg's name of the codec or of its decoder.
        extradata: The codec's global header.
        pix_fmt: FFmpeg's name of the frames' pixel format, as far as it is known.
    """

    def __init__(self, codec: str, extradata: bytes | None, *, pix_fmt: str | None = None) -> None:
        self._codec = _DECODERS.get(codec, codec)
        self._extradata = extradata or b""
        self._header_is_other = False
        self._mpeg4_header: bytes | None = None
        # The colours come with the first packet alone, beside its data.
        self._has_palette = self._codec == "rawvideo" and pix_fmt == "pal8"

    @property
    def needs_data(self) -> bool:
        """Whether the packets' bytes are looked at."""
        return self._codec in ("h264", "hevc", "mpeg4")

    def grade(self, data: bytes) -> Entry:
        """Grade a packet that carries the key frame flag.

        Args:
            data: The packet, in stream order; the first packet of the stream comes first.
                Empty where `needs_data` is false.
        """
        if self._has_palette:
            return Entry.NONE
        if self._codec == "h264":
            units = split_nals(data, self._nal_length_size())
            known = self._knows_header({unit[0] & 31 for unit in units}, _H264_PARAMETERS)
            return _grade_h264(units) if known else Entry.NONE
        if self._codec == "hevc":
            units = split_nals(data, self._nal_length_size())
            known = self._knows_header({unit[0] >> 1 & 63 for unit in units}, _HEVC_PARAMETERS)
            return _grade_hevc(units) if known else Entry.NONE
        if self._codec == "mpeg4":
            return self._grade_mpeg4(data)
        if self._codec in _CLOSED_CODECS:
            return Entry.CLOSED
        return Entry.OPEN if self._codec in _OPEN_CODECS else Entry.NONE

    def replace_header(self, extradata: bytes) -> None:
        """Take note that another global header holds from the next packet graded on.

        A decoder that starts behind the place where the file has it knows the first one only.
        """
        self._header_is_other = extradata != self._extradata

    def opens(self, following: bytes) -> bool:
        """Whether the packet after a key frame shows that frames before it are still to come.

        Only MPEG-4 needs this: its containers often have no presentation times to see it from.
        """
        if self._codec != "mpeg4":
            return False
        types = _mpeg4_types(following)
        return bool(types) and types[0] == _MPEG4_B

    def _knows_header(self, kinds: set[int], parameters: set[int]) -> bool:
        """Whether a decoder that starts at a packet of such units has the header in force."""
        return not self._header_is_other or parameters <= kinds

    def _nal_length_size(self) -> int:
        # avcC and hvcC headers begin with their version, 1; start codes begin with 0.
        extradata = self._extradata
        if self._codec == "h264" and len(extradata) > 6 and extradata[0] == 1:
            return (extradata[4] & 3) + 1
        if self._codec == "hevc" and len(extradata) > 22 and extradata[0] == 1:
            return (extradata[21] & 3) + 1
        return 0

    def _grade_mpeg4(self, data: bytes) -> Entry:
        header = data[: _mpeg4_header_end(data)]
        if self._mpeg4_header is None:
            self._mpeg4_header = header
        # The header tells the decoder which encoder's habits to follow (the inverse DCT among
        # them). Where only the first packet has it, decoding from elsewhere gives other pixels.
        known = self._mpeg4_header
        if known and known not in self._extradata and header != known:
            return Entry.NONE
        types = _mpeg4_types(data)
        if not types or types[0] != _MPEG4_I:
            return Entry.NONE
        return Entry.CLOSED if len(types) == 1 else Entry.OPEN


def split_nals(data: bytes, length_size: int) -> list[bytes]:
    """Split a packet into NAL units, each with its header byte, without start code.

    Args:
        data: One packet.
        length_size: Bytes of the length before each unit; 0 where start codes separate them.
    """
    if length_size == 0:
        return [unit for unit in data.split(b"\x00\x00\x01")[1:] if unit]
    units = []
    offset = 0
    while offset + length_size < len(data):
        start = offset + length_size
        size = int.from_bytes(data[offset:start], "big")
        if size:
            units.append(data[start : start + size])
        offset = start + size
    return units


def _grade_h264(units: list[bytes]) -> Entry:
    slices = [unit for unit in units if unit[0] & 31 in (_H264_SLICE, _H264_IDR)]
    if not slices:
        return Entry.NONE
    if all(unit[0] & 31 == _H264_IDR for unit in slices):
        return Entry.CLOSED
    intra = all(_h264_slice_type(unit) in _H264_INTRA_SLICES for unit in slices)
    recovers = any(_h264_recovers_at_once(unit) for unit in units if unit[0] & 31 == _H264_SEI)
    return Entry.OPEN if intra and recovers else Entry.NONE


def _grade_hevc(units: list[bytes]) -> Entry:
    types = [unit[0] >> 1 & 63 for unit in units]
    pictures = [kind for kind in types if kind < 32]
    if pictures and all(kind in _HEVC_IDR for kind in pictures):
        return Entry.CLOSED
    if pictures and all(kind in _HEVC_OTHER_IRAP for kind in pictures):
        return Entry.OPEN
    return Entry.NONE


def _h264_slice_type(unit: bytes) -> int:
    bits = _Bits(unit[1:16])
    bits.exp_golomb()  # first_mb_in_slice
    return bits.exp_golomb()


def _h264_recovers_at_once(unit: bytes) -> bool:
    payload = unit[1:].replace(b"\x00\x00\x03", b"\x00\x00")
    offset = 0
    while offset + 2 < len(payload):
        kind, offset = _sei_number(payload, offset)
        size, offset = _sei_number(payload, offset)
        if kind == _H264_RECOVERY_POINT:
            return _Bits(payload[offset : offset + size]).exp_golomb() == 0
        offset += size
    return False


def _sei_number(payload: bytes, offset: int) -> tuple[int, int]:
    value = 0
    while offset < len(payload) and payload[offset] == 0xFF:
        value += 255
        offset += 1
    return value + (payload[offset] if offset < len(payload) else 0), offset + 1


def _mpeg4_header_end(data: bytes) -> int:
    ends = [end for end in (data.find(_MPEG4_VOP), data.find(_MPEG4_GOP)) if end >= 0]
    return min(ends, default=0)


def _mpeg4_types(data: bytes) -> list[int]:
    """Coding types of the pictures in a packet (0 I, 1 P, 2 B, 3 sprite)."""
    types = []
    at = data.find(_MPEG4_VOP)
    while 0 <= at < len(data) - 4:
        types.append(data[at + 4] >> 6)
        at = data.find(_MPEG4_VOP, at + 4)
    return types


class _Bits:
    """Reads unsigned Exp-Golomb numbers."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def exp_golomb(self) -> int:
        """The next number; -1 past the end."""
        one = self._bits.find("1", self._at)
        if one < 0:
            return -1
        end = 2 * one - self._at + 1
        value = int(self._bits[one:end], 2) - 1
        self._at = end
        return value
