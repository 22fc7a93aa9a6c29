"""Joins datasets of pictures into videos, nothing encoded anew.

    python scripts/join_frames.py bbcpose_data_1.0 -o bbc_pose --rate 25

Each folder with pictures ``<number>.jpg`` becomes ``<folder's name>.mkv`` (Motion JPEG): the bytes
of the pictures are copied, in the order of their numbers, of which none may be missing. A video
that is there already stays as it is, so that the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
from benchmarking import counted, say

from rrm_extract.errors import InputError, RrmError

__all__ = ["join_frames"]

EXTENSIONS = (".jpg", ".jpeg")
INTERRUPTED = 130


def main() -> None:
    """Joins every folder that holds pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="searched for folders with pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rate", type=_rate, default=Fraction(25), help="frames/s (default: 25)")
    arguments = parser.parse_args()
    try:
        _join_all(arguments.folder, arguments.output, arguments.rate)
    except RrmError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept, the same command goes on", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _join_all(folder: Path, output: Path, rate: Fraction) -> None:
    found: dict[str, tuple[Path, list[Path]]] = {}
    for parent, _, _ in os.walk(folder, followlinks=True):
        if pictures := _pictures(Path(parent)):
            name = Path(parent).resolve().name
            if name in found:
                msg = (
                    f"{found[name][0]} and {parent} are both called {name}; expected one of a name"
                )
                raise InputError(msg)
            found[name] = (Path(parent), pictures)
    if not found:
        msg = f"{folder} holds no folder with pictures <number>.jpg; expected at least one"
        raise InputError(msg)
    for name, (_, pictures) in sorted(found.items()):
        path = output / f"{name}.mkv"
        if path.exists():
            say(f"{path}: there already")
            continue
        join_frames(pictures, path, rate=rate)
        say(f"{path}: {counted(len(pictures), 'frame')}")


def join_frames(pictures: Sequence[Path], path: Path, *, rate: Fraction) -> None:
    """Writes JPEG pictures of one size as a video, whole or not at all.

    Args:
        pictures: in order, at least one.
        path: a .mkv file.
        rate: frames a second.

    Raises:
        InputError: a picture cannot be read, or has another size than the first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    size = _size(pictures[0])
    try:
        with av.open(str(unfinished), "w") as container:
            stream = container.add_stream("mjpeg", rate=rate)
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p"
            for number, picture in enumerate(pictures):
                if _size(picture) != size:
                    width, height = _size(picture)
                    msg = f"{picture} is {width}x{height}; expected {size[0]}x{size[1]} throughout"
                    raise InputError(msg)
                packet = av.Packet(picture.read_bytes())
                packet.stream = stream
                packet.pts = packet.dts = number
                packet.duration = 1
                packet.time_base = 1 / rate
                packet.is_keyframe = True
                container.mux(packet)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _pictures(folder: Path) -> list[Path]:
    """Those of a folder by their numbers; none where it has none.

    Raises:
        InputError: a number is missing, or there twice.
    """
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in EXTENSIONS or not path.stem.isdecimal():
            continue
        if int(path.stem) in numbered:
            msg = f"{numbered[int(path.stem)]} and {path.name} have one number; expected each once"
            raise InputError(msg)
        numbered[int(path.stem)] = path
    numbers = sorted(numbered)
    for before, after in pairwise(numbers):
        if after != before + 1:
            msg = f"{folder}: after picture {before} comes {after}; expected all numbers between"
            raise InputError(msg)
    return [numbered[number] for number in numbers]


def _size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture, from its header."""
    try:
        with av.open(str(path), format="mjpeg") as container:
            context = container.streams.video[0].codec_context
            size = (context.width, context.height)
    except (av.error.FFmpegError, IndexError) as error:
        msg = f"{path} cannot be read ({error}); expected a JPEG picture"
        raise InputError(msg) from error
    if 0 in size:
        msg = f"{path} has no size; expected a JPEG picture"
        raise InputError(msg)
    return size


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        msg = f"{text}: expected frames a second, such as 25 or 30000/1001"
        raise argparse.ArgumentTypeError(msg)
    return rate


if __name__ == "__main__":
    main()
