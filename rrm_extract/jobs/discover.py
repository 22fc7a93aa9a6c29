"""Which videos a job is about, and what each is called in the output."""

from __future__ import annotations

import csv
import fnmatch
import glob
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrm_extract.errors import InputError
from rrm_extract.jobs.folders import (
    Kind,
    closed_folders,
    files_below,
    files_of_match,
    folders_below,
    is_there,
)

__all__ = ["VIDEO_EXTENSIONS", "Video", "discover"]

# fmt: off
VIDEO_EXTENSIONS = frozenset(
    {
        ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".hevc", ".ivf",
        ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
        ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
        ".y4m",
    }
)
# fmt: on
"""What is taken from a folder when no pattern is given; a file that is named is always taken."""

LIST_EXTENSIONS = frozenset({".txt", ".csv", ".lst"})
ANY_FOLDERS = "**"
"""Of a glob: folders to any depth."""

LIST_COLUMNS = ("path", "video", "file", "filename", "video_path")


@dataclass(frozen=True)
class Video:
    """One video of a job.

    Attributes:
        video_id: its path relative to the input root, "/" between components.
        path: where it is.
    """

    video_id: str
    path: Path


def discover(
    inputs: Sequence[str], *, root: str | None = None, include: Sequence[str] = ()
) -> list[Video]:
    """Finds the videos that ``inputs`` name.

    An input is a file, a folder (searched recursively; hidden files are passed over), a glob
    ("**" crosses folders), or a .txt or .csv list: one path a line, or a column called path,
    video, file or filename; relative paths are relative to the list. A listed file that is
    missing is returned all the same, and so are folders that cannot be read and dangling links,
    unless by their extension no videos: that they cannot be opened is then that video's failure.

    Args:
        inputs: at least one.
        root: folder that video ids are relative to; by default the folder that was given, the
            part of a glob without wildcards, the folder of a file, or the list's folder.
        include: glob patterns, matched against a file's name and its path below the folder.

    Returns:
        Each video once, sorted by id; of inputs that overlap the first names it.

    Raises:
        InputError: an input does not exist or holds no video, a video is outside ``root``, or
            two videos would have the same id.
    """
    if not inputs:
        msg = "no input was given; expected video files, folders, globs or a list"
        raise InputError(msg)
    by_id: dict[str, Video] = {}
    given_by: dict[str, str] = {}  # the input that gave a path first
    for given in inputs:
        for base, path in _expand(given, include):
            if given_by.setdefault(os.path.abspath(path), given) != given:  # noqa: PTH100
                continue
            video = Video(_video_id(path, Path(root) if root else base, given), path)
            other = by_id.setdefault(video.video_id, video)
            if other.path != path and os.path.realpath(other.path) != os.path.realpath(path):
                msg = (
                    f"{other.path} and {path} would both be called {video.video_id!r} in the "
                    "output; give --root, a folder that holds both"
                )
                raise InputError(msg)
    return sorted(by_id.values(), key=lambda video: video.video_id)


def _expand(given: str, include: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """(folder that ids are relative to, path) of each video of one input."""
    path = Path(given)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir() fails where nothing may be read
        found = [(path, file) for file in _walk(path, files_below(path), include)]
        if not found:
            raise _none_wanted(f"folder {given} holds", include)
        yield from found
    elif is_there(path):
        if path.suffix.lower() in LIST_EXTENSIONS:
            yield from _listed(path)
        else:
            yield path.parent, path
    elif glob.has_magic(given):
        yield from _matched(given, include)
    else:
        msg = (
            f"input {given} does not exist; expected a video, a folder, a glob or a list of videos"
        )
        raise InputError(msg)


def _matched(pattern: str, include: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    fixed: list[str] = []
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    base = Path(*fixed) if fixed else Path()
    matches = sorted(set(_globbed(pattern, base)))
    is_folder = {match: os.path.isdir(match) for match in matches}  # noqa: PTH112 - as above
    files = [Path(match) for match in matches if not is_folder[match]]
    folders = [Path(match) for match in matches if is_folder[match]]
    if not matches:
        msg = f"glob {pattern} matches no file; expected a pattern such as 'videos/**/*.mp4'"
        raise InputError(msg)
    found = [file for file in files if _wanted(file.name, file.name, include)]
    found += closed_folders(set(files).difference(found))
    for folder in folders:
        found += _walk(folder, files_of_match(folder, base=base), include)
    if not found:
        raise _none_wanted(f"glob {pattern} matches", include)
    yield from ((base, file) for file in found)


def _globbed(pattern: str, base: Path) -> Iterator[str]:
    """What a glob matches, and folders on its way that cannot be read.

    For ** links are not followed back into a folder that they are in.
    """
    parts = Path(pattern).parts
    if ANY_FOLDERS not in parts:
        yield from glob.glob(pattern)  # noqa: PTH207 - absolute patterns too
        yield from map(str, _closed_on_the_way(parts))
        return
    place = parts.index(ANY_FOLDERS)
    behind = parts[place + 1 :]
    for above in glob.glob(str(Path(*parts[:place]))) if place else ["."]:  # noqa: PTH207
        for folder, kind in folders_below(Path(above), base=base):
            within = glob.escape(str(folder))
            if kind is Kind.CLOSED:
                yield str(folder)
            elif behind:
                yield from _globbed(str(Path(within, *behind)), base)
            else:  # all files, whose folders have their own turn
                matches = glob.glob(str(Path(within, "*")))  # noqa: PTH207
                yield from (match for match in matches if not os.path.isdir(match))  # noqa: PTH112


def _closed_on_the_way(parts: Sequence[str]) -> Iterator[Path]:
    """Folders that wildcards match, in which what comes next cannot be looked for."""
    for place in range(1, len(parts)):
        if any(map(glob.has_magic, parts[:place])):
            above = [Path(match) for match in glob.glob(str(Path(*parts[:place])))]  # noqa: PTH207
            if glob.has_magic(parts[place]):
                yield from closed_folders(above)
            else:
                yield from (each for each in above if _is_unknown(each / parts[place]))
                yield from closed_folders(each for each in above if not os.path.exists(each))  # noqa: PTH110


def _is_unknown(path: Path) -> bool:
    return is_there(path) and not os.path.lexists(path)


def _none_wanted(what: str, include: Sequence[str]) -> InputError:
    wanted = ", ".join(include) if include else "a video's extension"
    return InputError(f"{what} no file with {wanted}; expected videos, or give --include")


def _walk(folder: Path, files: Iterable[tuple[Path, Kind]], include: Sequence[str]) -> list[Path]:
    found = []
    for path, kind in files:
        relative = path.relative_to(folder).as_posix()
        # Of a closed folder the videos are not known.
        if kind is Kind.CLOSED or _wanted(path.name, relative, include):
            found.append(path)
    return sorted(found)


def _wanted(name: str, relative: str, include: Sequence[str]) -> bool:
    if include:
        return any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(relative, p) for p in include)
    return Path(name).suffix.lower() in VIDEO_EXTENSIONS


def _listed(listing: Path) -> Iterator[tuple[Path, Path]]:
    try:
        text = listing.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        msg = f"list {listing} cannot be read: {error.strerror}; expected one path a line"
        raise InputError(msg) from error
    rows: Iterable[str]
    if listing.suffix.lower() == ".csv":
        rows = _column(listing, text)
    else:  # not splitlines(), which also cuts at characters that names may have
        lines = (line.strip() for line in text.split("\n"))
        rows = (line for line in lines if not line.startswith("#"))
    paths = [row for row in rows if row]
    if not paths:
        msg = f"list {listing} is empty; expected one path a line"
        raise InputError(msg)
    for path in paths:
        yield listing.parent, listing.parent / path


def _column(listing: Path, text: str) -> list[str]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        msg = f"list {listing} is no table: {error}; expected one video a row, quotes closed"
        raise InputError(msg) from error
    if not rows:
        return []
    head = [cell.strip().lower() for cell in rows[0]]
    for name in LIST_COLUMNS:
        if name in head:
            column = head.index(name)
            return [row[column].strip() for row in rows[1:] if len(row) > column]
    if Path(rows[0][0]).suffix or len(rows[0]) == 1:
        return [row[0].strip() for row in rows]  # no header: the first column
    msg = (
        f"list {listing} has the columns {', '.join(rows[0])}; "
        f"expected one of {', '.join(LIST_COLUMNS)}"
    )
    raise InputError(msg)


def _video_id(path: Path, base: Path, given: str) -> str:
    # Not resolved: a dataset of symbolic links keeps the names its user sees.
    absolute, root = os.path.abspath(path), os.path.abspath(base)  # noqa: PTH100
    try:
        return Path(absolute).relative_to(root).as_posix()
    except ValueError:
        msg = (
            f"video {path} of input {given} is not below the folder {base}; "
            "give --root, a folder that holds all videos"
        )
        raise InputError(msg) from None
