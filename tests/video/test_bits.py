"""Where decoding may start, told from a packet's bytes."""

from __future__ import annotations

import pytest

from rrm_extract.video._bits import Entry, EntryFinder, split_nals

START = b"\x00\x00\x01"
IDR = START + b"\x65\x88"  # first_mb 0, slice type 7: I
I_SLICE = START + b"\x41\x88"
P_SLICE = START + b"\x41\x9a"  # slice type 5: P
RECOVERS_NOW = START + b"\x06\x06\x01\xc4\x80"
RECOVERS_LATER = START + b"\x06\x06\x01\x18\x80"  # after 11 frames
USER_TEXT = START + b"\x06\x05\x04text\x80"

VOL = b"\x00\x00\x01\x20header\x00\x00\x01\xb2Lavc1"
I_VOP, P_VOP, B_VOP = (b"\x00\x00\x01\xb6" + bytes([kind << 6]) + b"data" for kind in range(3))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (IDR, Entry.CLOSED),
        (USER_TEXT + IDR + IDR, Entry.CLOSED),
        (RECOVERS_NOW + I_SLICE, Entry.OPEN),
        (USER_TEXT + RECOVERS_NOW + I_SLICE + I_SLICE, Entry.OPEN),
        (I_SLICE, Entry.NONE),
        (RECOVERS_LATER + I_SLICE, Entry.NONE),
        (RECOVERS_NOW + P_SLICE, Entry.NONE),
        (RECOVERS_NOW + I_SLICE + P_SLICE, Entry.NONE),
        (RECOVERS_NOW, Entry.NONE),
        (b"", Entry.NONE),
    ],
)
def test_h264(data: bytes, expected: Entry) -> None:
    assert EntryFinder("h264", None).grade(data) == expected


def test_h264_with_lengths() -> None:
    finder = EntryFinder("h264", b"\x01\x64\x00\x0a\xff\xe1\x00\x00")
    assert finder.grade(b"\x00\x00\x00\x02\x65\x88") == Entry.CLOSED
    assert finder.grade(b"\x00\x00\x00\x02\x41\x88") == Entry.NONE
    assert finder.grade(b"\x00\x00\x00\x00\xff\xff\xff\xff\x41") == Entry.NONE


@pytest.mark.parametrize(
    ("codec", "parameters", "key"),
    [
        ("h264", START + b"\x67sps" + START + b"\x68pps", IDR),
        ("hevc", b"".join(START + bytes([n << 1, 1]) for n in (32, 33, 34)), START + b"\x26\x01"),
    ],
)
def test_a_key_behind_another_header_needs_it(codec: str, parameters: bytes, key: bytes) -> None:
    finder = EntryFinder(codec, b"\0one")
    assert finder.grade(key) == Entry.CLOSED
    finder.replace_header(b"\0two")
    assert finder.grade(key) == Entry.NONE
    assert finder.grade(parameters + key) == Entry.CLOSED
    finder.replace_header(b"\0one")
    assert finder.grade(key) == Entry.CLOSED


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(19, Entry.CLOSED), (20, Entry.CLOSED), (21, Entry.OPEN), (16, Entry.OPEN), (1, Entry.NONE)],
)
def test_hevc(kind: int, expected: Entry) -> None:
    assert EntryFinder("hevc", None).grade(START + bytes([kind << 1, 1, 0])) == expected


def test_mpeg4() -> None:
    finder = EntryFinder("mpeg4", VOL)
    assert finder.grade(VOL + I_VOP) == Entry.CLOSED
    assert finder.grade(I_VOP) == Entry.CLOSED
    assert finder.grade(I_VOP + B_VOP) == Entry.OPEN
    assert finder.grade(P_VOP) == Entry.NONE
    assert finder.grade(b"\x7f") == Entry.NONE
    assert finder.opens(B_VOP)
    assert not finder.opens(P_VOP)


def test_mpeg4_header_only_at_the_beginning_is_no_entry() -> None:
    finder = EntryFinder("mpeg4", b"")
    assert finder.grade(VOL + I_VOP) == Entry.CLOSED
    assert finder.grade(I_VOP) == Entry.NONE
    assert finder.grade(VOL + I_VOP) == Entry.CLOSED


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        ("mjpeg", Entry.CLOSED),
        ("mpeg2video", Entry.OPEN),
        ("cinepak", Entry.NONE),
        ("libdav1d", Entry.CLOSED),
    ],
)
def test_other_codecs_go_by_their_name(codec: str, expected: Entry) -> None:
    finder = EntryFinder(codec, None)
    assert not finder.needs_data
    assert finder.grade(b"") == expected


def test_split_nals() -> None:
    assert split_nals(START + b"ab" + START + b"c", 0) == [b"ab", b"c"]
    assert split_nals(b"\x00\x02ab\x00\x01c", 2) == [b"ab", b"c"]
    assert split_nals(b"\x00\xffab", 2) == [b"ab"]
