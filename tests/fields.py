"""Interlaced H.264 with a picture for each field, bare or in a transport stream.

No encoder here makes it.

Macroblocks hold plain samples (I_PCM), so that the bits are few and easily written down: ITU-T
H.264, sections 7.3 and 7.4; ISO/IEC 13818-1, sections 2.4.3 and 2.4.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

RATE = 25
TICKS = 90_000 // RATE


def write_fields(path: Path, *, n_frames: int, unstamped: Sequence[int] = ()) -> None:
    """A clip of 32 x 32 pixels whose frame n has the luma level 60 + 2 n.

    The fields of a frame share a PES packet, as cameras write them: the second has no time.

    Args:
        path: the file.
        n_frames: how many.
        unstamped: frames whose packet has no time either.
    """
    stream = _TransportStream()
    for n in range(n_frames):
        stream.add(_frame(n), decoded=90_000 + n * TICKS, has_times=n not in unstamped)
    path.write_bytes(stream.data)


def write_bare_fields(
    path: Path, *, n_frames: int, held_back: int = 0, padded: Sequence[int] = ()
) -> None:
    """The same without any times.

    Args:
        path: the file.
        n_frames: how many.
        held_back: frames that the decoder is told to hold back, as if their order were another.
        padded: frames whose first field is larger than others.
    """
    frames = (_frame(n, held_back=held_back, is_padded=n in padded) for n in range(n_frames))
    path.write_bytes(b"".join(frames))


class _Bits:
    def __init__(self) -> None:
        self._bits: list[int] = []

    def u(self, *pairs: tuple[int, int]) -> _Bits:
        """Numbers of so many bits: (bits, value)."""
        for size, value in pairs:
            self._bits += [(value >> (size - 1 - place)) & 1 for place in range(size)]
        return self

    def ue(self, *values: int) -> _Bits:
        """Unsigned Exp-Golomb codes."""
        for value in values:
            self.u((2 * (value + 1).bit_length() - 1, value + 1))
        return self

    def align(self) -> _Bits:
        return self.u((-len(self._bits) % 8, 0))

    def end(self) -> bytes:
        """With the stop bit."""
        self.u((1, 1)).align()
        number = int("".join(map(str, self._bits)), 2)
        return number.to_bytes(len(self._bits) // 8, "big")


def _unit(header: int, payload: bytes) -> bytes:
    """A NAL unit, with emulation prevention."""
    out, zeros = bytearray(), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\0\0\0\1" + bytes([header]) + bytes(out)


_DELIMITER = b"\0\0\0\1\x09\xf0"


def _frame(n: int, *, held_back: int = 0, is_padded: bool = False) -> bytes:
    data = _DELIMITER + (_parameters(held_back) if n % 10 == 0 else b"")
    data += _unit(0x0C, b"\xff" * 300 + b"\x80") if is_padded else b""
    return data + _field(n, bottom=0) + _DELIMITER + _field(n, bottom=1)


def _parameters(held_back: int) -> bytes:
    # Main profile, level 3, 16 frames to number by, order of display as decoded, one reference,
    # 2 x 1 pairs of macroblocks, fields allowed; 25 frames a second.
    sequence = _Bits().u((8, 77), (8, 0), (8, 30)).ue(0, 0, 0, 4, 1).u((1, 0)).ue(1, 0)
    sequence.u((1, 0), (1, 0), (1, 1), (1, 0), (1, 1), (4, 0), (1, 1), (32, 1), (32, 2 * RATE))
    sequence.u((1, 1), (1, 0), (1, 0), (1, 0), (1, 1), (1, 1)).ue(0, 0, 10, 10)
    sequence.ue(held_back, held_back + 1)
    picture = _Bits().ue(0, 0).u((1, 0), (1, 0)).ue(0, 0, 0).u((1, 0), (2, 0)).ue(0, 0, 0)
    picture.u((1, 1), (1, 0), (1, 0))
    return _unit(0x67, sequence.end()) + _unit(0x68, picture.end())


def _field(n: int, *, bottom: int) -> bytes:
    is_first = n == 0 and not bottom
    bits = _Bits().ue(0, 7, 0).u((4, n % 16), (1, 1), (1, bottom))
    if is_first:
        bits.ue(0)
    bits.u((8, (2 * n + bottom) % 256), (2 if is_first else 1, 0)).ue(0, 1)
    samples = bytes([60 + 2 * n]) * 256 + bytes([128]) * 128
    for _ in range(2):
        bits.ue(25).align().u((8 * len(samples), int.from_bytes(samples, "big")))
    return _unit(0x65 if is_first else 0x61, bits.end())


class _TransportStream:
    def __init__(self) -> None:
        self.data = b""
        self._counters: dict[int, int] = {}
        self._n = 0

    def add(self, data: bytes, *, decoded: int, has_times: bool) -> None:
        """A PES packet; now and then the tables that name its stream come before it."""
        if self._n % 10 == 0:
            self._table(0, b"\0\xb0\x0d\0\1\xc1\0\0\0\1\xe1\0")
            self._table(0x100, b"\2\xb0\x12\0\1\xc1\0\0\xe1\x01\xf0\0\x1b\xe1\x01\xf0\0")
        self._n += 1
        times = _time(3, decoded + TICKS) + _time(1, decoded) if has_times else b""
        flags = bytes([0x84, 0xC0 if has_times else 0, len(times)])
        self._packets(0x101, b"\0\0\1\xe0\0\0" + flags + times + data, clock=decoded - 9000)

    def _table(self, number: int, section: bytes) -> None:
        whole = b"\0" + section + _checksum(section)
        self._packets(number, whole.ljust(184, b"\xff"))

    def _packets(self, number: int, payload: bytes, *, clock: int | None = None) -> None:
        begins = True
        while payload:
            extra = b""
            if begins and clock is not None:
                extra = bytes([0x10]) + ((clock << 15) | (0x3F << 9)).to_bytes(6, "big")
            room = 184 - (len(extra) + 1 if extra else 0)
            taken, payload = payload[:room], payload[room:]
            has_extra = bool(extra) or len(taken) < room
            if extra:
                extra += b"\xff" * (room - len(taken))
            elif room - len(taken) > 1:
                extra = b"\0" + b"\xff" * (room - len(taken) - 2)
            count = self._counters.get(number, 0)
            self._counters[number] = (count + 1) % 16
            start = 0x40 if begins else 0
            self.data += bytes([0x47, start | number >> 8, number & 255])
            self.data += bytes([(0x30 if has_extra else 0x10) | count])
            self.data += (bytes([len(extra)]) + extra if has_extra else b"") + taken
            begins = False


def _time(kind: int, ticks: int) -> bytes:
    high, middle, low = ticks >> 30, ticks >> 15 & 0x7FFF, ticks & 0x7FFF
    head = kind << 4 | high << 1 | 1
    return bytes([head, middle >> 7, (middle & 127) << 1 | 1, low >> 7, (low & 127) << 1 | 1])


def _checksum(section: bytes) -> bytes:
    """CRC-32/MPEG-2."""
    found = 0xFFFFFFFF
    for byte in section:
        found ^= byte << 24
        for _ in range(8):
            found = (found << 1 ^ (0x04C11DB7 if found & 0x80000000 else 0)) & 0xFFFFFFFF
    return found.to_bytes(4, "big")
