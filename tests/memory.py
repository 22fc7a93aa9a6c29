"""What the operating system says of this process's memory."""

from __future__ import annotations

from pathlib import Path

__all__ = ["assert_mapped_not_copied"]


def assert_mapped_not_copied(path: Path) -> None:
    """A file is mapped and was read, and every page of it still is the file's own.

    Needs Linux's /proc.
    """
    pages: dict[str, int] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if "-" in name.split(" ")[0]:  # the head of a mapping
            inside = line.endswith(str(path))
        elif inside and value.endswith("kB"):
            pages[name] = pages.get(name, 0) + int(value.split()[0])
    assert pages["Size"] * 1024 >= path.stat().st_size
    assert pages["Rss"] > 1000, "the weights were read"
    assert pages["Anonymous"] == 0, "no page was copied on writing"
