from __future__ import annotations

import os
import random
import unicodedata

import pytest

from rrm_extract.errors import InputError
from rrm_extract.store import escape, unescape
from rrm_extract.store.names import file_key

ORDINARY = ["S/AB12C.mp4", "a b/ü é.avi", "x\\y.mp4", "日本/映画.mkv", "-.mp4", "features/a.mp4",
            "audit/a.mp4", "a.mp4/error", "a.mp4/audits"]  # fmt: skip

AWKWARD = {
    "100%.mp4": "100%25.mp4",
    "a/./b": "a/%2E/b",
    "../b": "%2E%2E/b",
    "...": "...",
    "/abs.mp4": "%2Fabs.mp4",
    "a//b": "a/%2Fb",
    "a/": "a%2F",
    "//": "%2F%2F",
    "a\nb\x7f": "a%0Ab%7F",
    "caf\udce9.mp4": "caf%E9.mp4",
    "a.mp4/features": "a.mp4/%66eatures",
    "a.mp4/layers/x.mp4": "a.mp4/%6Cayers/x.mp4",
    "a.mp4/audit": "a.mp4/%61udit",
    "a.mp4/audit/error": "a.mp4/%61udit/error",
    "a%2Fb": "a%252Fb",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_are_kept(name: str) -> None:
    assert escape(name) == name
    assert unescape(name) == name


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names_are_escaped(name: str) -> None:
    assert escape(name) == AWKWARD[name]
    assert unescape(AWKWARD[name]) == name


def test_any_path_comes_back_and_stands_alone() -> None:
    dice = random.Random(0)
    alphabet = [b"/", b".", b"%", b"2", b"E", b"F", b"a", b"\xc3\xa9", b"\xc3", b"\xa9", b"\xff",
                b"\n", b"features", b"pts"]  # fmt: skip
    seen: dict[str, str] = {}
    for _ in range(5000):
        name = b"".join(dice.choices(alphabet, k=dice.randint(1, 7))).decode(
            "utf-8", "surrogateescape"
        )
        stored = escape(name)
        assert unescape(stored) == name
        stored.encode()  # is plain UTF-8
        components = stored.split("/")
        assert not {"", ".", ".."} & {*components}
        assert seen.setdefault(stored, name) == name


def test_normal_forms_stay_apart() -> None:
    composed, decomposed = (unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD"))
    assert escape(composed) != escape(decomposed)
    assert file_key(composed) != file_key(decomposed)


@pytest.mark.parametrize("name", ["", "\ud800.mp4", "\udcc3\udca9.mp4"])
def test_impossible_names_fails(name: str) -> None:
    with pytest.raises(InputError, match="cannot name a video"):
        escape(name)


def test_file_key_is_short_and_safe() -> None:
    key = file_key("x" * 4000 + "/" + os.fsdecode(b"\xff"))
    assert len(key) == 32
    assert key.isalnum()
    assert file_key("a", 1, 23) != file_key("a", 12, 3)
