"""Networks that earlier jobs have loaded, kept for those that follow.

To load a network takes PyTorch, torchvision, and seconds of every job. What comes of it is plain
data, which is the same whenever the same network is asked for in the same way: it is kept in a
folder of the user's, and PyTorch is not imported when it is found there.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import platform
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rrm_extract.config import JobConfig
from rrm_extract.device import is_cpu
from rrm_extract.engine.kernels import isa_of_this_process, native_module
from rrm_extract.engine.mapped import is_mapped
from rrm_extract.errors import EngineError
from rrm_extract.given_file import lack_of_file
from rrm_extract.jobs.compiled import beside
from rrm_extract.jobs.digests import digest_of_code, file_digest
from rrm_extract.jobs.plan import JobPlan
from rrm_extract.store.files import STALE_SECONDS

__all__ = ["NOT_OF_THE_NETWORK", "VARIABLE", "NetworkCache", "copied", "network_key"]

VARIABLE = "RRM_CACHE"
"""Environment variable: the folder, or "off"."""

LIMIT = 2 * 2**30
"""Bytes that are kept; what was not used for longest goes first."""

NOT_OF_THE_NETWORK = frozenset(
    {
        *("inputs", "output", "root", "include", "fps", "chunk", "dtype"),
        *("workers", "timeout", "retries", "overwrite", "retry_failed", "json_log", "progress"),
    }
)
"""Options of a job that loading its network does not read."""

FILES_OF_OPTIONS = ("weights", "preprocess", "thresholds", "aecs")
"""Options that may name a file, whose bytes decide."""

PACKAGES = ("torch", "torchvision", "timm", "numpy")
"""What makes the network and its numbers."""

ON_ITS_WAY = ".rrm-"
"""What the name of a network's folder begins with while it is written."""

OWN = re.compile(rf"[0-9a-f]{{64}}|{re.escape(ON_ITS_WAY)}.+")
"""Names of the cache's own folders; nothing else is ever deleted, whatever folder was named."""

KNOWN = re.compile(r"\w+")
"""Models whose code is this package's, or that of a package whose version is looked at."""

FROM_FILE = re.compile(r"darknet:(.+)|(.+\.(?:dcz|net))", re.DOTALL | re.IGNORECASE)
"""Models that are a file, which refers to no other. (One in ONNX may.)"""

COMPUTATION, PLAN, ABOUT = "computation", "plan", "about.json"


def network_key(config: JobConfig) -> str | None:
    """What stands for the network of a job: equal keys, equal computation.

    Returns:
        Hexadecimal digits; None where something else could decide than what is looked at here:
        the user's own code, files that refer to other files, other devices than the CPU.
    """
    plain = KNOWN.fullmatch(config.model)
    timm = config.model.startswith("timm/") and (
        config.weights.startswith("random") or lack_of_file(Path(config.weights)) is None
    )
    file = FROM_FILE.fullmatch(config.model)
    if not (plain or timm or file) or not is_cpu(config.device) or config.engine == "torch":
        return None
    options = {k: v for k, v in config.to_mapping().items() if k not in NOT_OF_THE_NETWORK}
    try:
        if file:
            options["model_file"] = file_digest(Path(file[1] or file[2]))
        for option in FILES_OF_OPTIONS:
            path = options[option]
            if isinstance(path, str) and Path(path).is_file():
                options[option] = [Path(path).name, file_digest(Path(path))]
        native = native_module()
        decides = {
            "options": options,
            "isa": [isa_of_this_process(), *native.available_isas()],
            "environment": [platform.machine(), sys.version, *_versions()],
            "code": digest_of_code(),
        }
    except (OSError, EngineError):  # whoever loads the network says what is wrong
        return None
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class NetworkCache:
    """The folder, in which each network is a folder of its own.

    Args:
        folder: it is made when the first network is kept.
        limit: bytes.
    """

    def __init__(self, folder: Path, *, limit: int = LIMIT) -> None:
        self.folder = folder
        self.limit = limit

    @classmethod
    def of_user(cls, environment: Mapping[str, str] = os.environ) -> NetworkCache | None:
        """The user's own; None where it is switched off, or could be written by others.

        What lies there is executed when it is read, as all that Python pickles.
        """
        named = environment.get(VARIABLE, "")
        if named.lower() in {"off", "0"}:
            return None
        home = environment.get("XDG_CACHE_HOME", "")
        try:
            base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
            folder = Path(named).expanduser() if named else base / "rrm-extract"
            about = folder.stat()
        except FileNotFoundError:
            return cls(folder)
        except (OSError, RuntimeError):  # no home, or one that cannot be read
            return None
        is_own = not hasattr(os, "getuid") or about.st_uid == os.getuid()
        is_closed = not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        return cls(folder) if is_own and is_closed and stat.S_ISDIR(about.st_mode) else None

    def find(self, key: str) -> JobPlan | None:
        """The plan of a network that is there whole; one that is damaged is deleted."""
        entry = self.folder / key
        if not os.path.isdir(entry):  # noqa: PTH112 - Path.is_dir() fails where nothing may be read
            return None
        try:
            digests = json.loads((entry / ABOUT).read_bytes())
            whole = all(file_digest(entry / name) == digest for name, digest in digests.items())
            if whole:
                with suppress(OSError):  # a cache that can only be read
                    os.utime(entry)  # when it was used last
                plan: JobPlan = pickle.loads((entry / PLAN).read_bytes())  # noqa: S301 - our own
                return plan
        except (OSError, ValueError):  # ends as a damaged one
            pass
        shutil.rmtree(entry, ignore_errors=True)
        return None

    def computation(self, key: str) -> Path:
        """Where the computation of a network lies."""
        return self.folder / key / COMPUTATION

    def keep(
        self,
        key: str,
        plan: JobPlan,
        computation: Path,
        *,
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        """Keeps a network for later jobs, if there is room; the job does not depend on it.

        Args:
            key: of the network.
            plan: what a job knows of it.
            computation: what workers run; the file beside it is kept as well.
            holds: whether the key is still the network's. It is asked once there is a copy, for
                that may take longer than a short job leaves its files.
        """
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_room(key)  # of copies whose jobs were ended, as this one may be
            temp = Path(tempfile.mkdtemp(prefix=ON_ITS_WAY, dir=self.folder))
            try:
                copied(computation, temp / COMPUTATION)
                (temp / PLAN).write_bytes(pickle.dumps(plan))
                digests = {path.name: file_digest(path) for path in temp.iterdir()}
                (temp / ABOUT).write_text(json.dumps(digests))
                if _size(temp) <= self.limit and holds():
                    temp.replace(self.folder / key)  # not where another job was first
            finally:
                shutil.rmtree(temp, ignore_errors=True)
                self._make_room(key)

    def _make_room(self, newest: str) -> None:
        now = time.time()
        by_age = sorted(self._entries(), key=lambda item: item[0])
        total = sum(size for _, size, _ in by_age)
        for used, size, entry in by_age:
            on_its_way = entry.name.startswith(ON_ITS_WAY)
            too_much = total > self.limit and entry.name != newest and not on_its_way
            if too_much or (on_its_way and now - used > STALE_SECONDS):
                shutil.rmtree(entry, ignore_errors=True)
                total -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        for entry in self.folder.iterdir():
            if not OWN.fullmatch(entry.name):
                continue
            with suppress(OSError):  # another job has deleted it
                yield entry.stat().st_mtime, _size(entry), entry


def copied(computation: Path, to: Path) -> None:
    """A computation under another name, the file beside it too; a link where that is possible.

    Raises:
        OSError: one of them is not there any more, or cannot be written.
    """
    names = [(computation, to)]
    if is_mapped(computation):  # what it lacks is in the file beside it
        names.append((beside(computation), beside(to)))
    for source, target in names:
        try:
            os.link(source, target)
        except OSError:  # another disk, or a system without links
            shutil.copyfile(source, target)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _versions() -> list[Any]:
    found: list[Any] = []
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found.append([package, version(package)])
    return found
