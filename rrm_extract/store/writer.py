"""The output of a run: what is done, what is written, and how it becomes one file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType

from rrm_extract.errors import (
    StoreError,
    StoreFormatError,
    StoreMismatchError,
)
from rrm_extract.store.failurefile import load_failure, save_failure
from rrm_extract.store.files import fsync_dir, is_temp, remove, temp_path, writing
from rrm_extract.store.job import Job, job_path, load_job
from rrm_extract.store.layout import READ_ERRORS, reading, refuse_to_blame, same_value
from rrm_extract.store.merge import Entry, write_finished
from rrm_extract.store.names import escape, file_key
from rrm_extract.store.part import DoneVideo, PartWriter, read_part
from rrm_extract.store.place import OutputPlace
from rrm_extract.store.reader import FeatureFile
from rrm_extract.store.schema import (
    FORMAT_NAME,
    FORMAT_VERSION,
    JSON,
    KERNEL_ISA,
    MAKERS,
    TASK_FORMAT_VERSION,
    Array,
    Attr,
    FailureRecord,
    Source,
    canonical_json,
    is_volatile,
    sha256_of,
    storable,
    version_of,
)
from rrm_extract.store.taskrows import TaskRows

_PART = ".h5"
_CHUNKS = ".chunks"
_FAILED = ".failed.json"
_OWN_ROOT_ATTRS = ("format", "format_version", "complete", "identity_json", "config_sha256", "task")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LONGEST_VALUE = 60  # characters of a setting shown in a message


class OutputStore:
    """The single writer of one output.

        with OutputStore(Path("feats.h5"), identity) as store:
            for source in sources:
                if store.status(source) is None:
                    with store.part(source, feature_shape=(512,)) as part:
                        ...
            store.finish(sources, failures, root_attrs, complete=True)

    Everything written is safe as soon as the call that wrote it returns. Entering takes the lock
    and raises what stands in the way:

    Raises:
        StoreLockedError: Another process writes this output.
        StoreFormatError: What is at `output` is no feature file, or a damaged one.
        StoreMismatchError: `output`, or unfinished work for it, has another identity.
        StoreWriteError: The folder is missing or cannot be written to.
    """

    def __init__(
        self,
        output: Path | OutputPlace,
        identity: Mapping[str, JSON],
        *,
        overwrite: bool = False,
        task: TaskRows | None = None,
        kernel_isa: str = "",
    ) -> None:
        """Nothing is touched yet.

        Args:
            output: The file to write; or its place, which may be locked already.
            identity: The settings that decide the results.
            overwrite: Make everything anew; the old file stays until the new one replaces it. A run
                that was interrupted goes on when it is told to overwrite again.
            task: What frames have in place of a feature, if they have.
            kernel_isa: Instruction set, or device, that computes in this run.
        """
        self._place = output if isinstance(output, OutputPlace) else OutputPlace(Path(output))
        self.output = self._place.output
        """The file."""
        self.parts_dir = self._place.parts_dir
        """Where unfinished work is kept."""
        self.overwrite = overwrite
        """Whether the old file is replaced whole."""
        self._rows = task
        self._task = None if task is None else task.task
        self._identity_json = canonical_json(identity)
        self._config_sha256 = sha256_of(self._identity_json)
        self._finished: dict[str, DoneVideo] = {}  # by stored id
        self._finished_failures: dict[str, FailureRecord] = {}  # by stored id
        self._finished_attrs: Mapping[str, Attr | Array] = {}
        self._parts: dict[Path, DoneVideo | None] = {}  # parts checked so far
        self._kernel_isa = kernel_isa
        self._earlier_isas: tuple[str, ...] = ()  # of runs that left unfinished work
        self._computes = False

    def __enter__(self) -> OutputStore:
        with ExitStack() as stack:
            stack.enter_context(self._place)
            self._take_over()
            stack.pop_all()  # what follows is for __exit__
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with writing(self.parts_dir):
                if self.parts_dir.is_dir() and not self._has_work():
                    self._discard_parts()
        except StoreError:  # of a disk that takes nothing more: what it did first is told
            if error is None:
                raise
        finally:
            self._place.__exit__(kind, error, trace)

    # What is done.

    def done(self, source: Source) -> DoneVideo | None:
        """A video that is done; None when it is to be done.

        It is done when a part or the finished file has it, made from a source of this size and
        modification time. A part is checked in full the first time; a damaged one is removed.
        """
        part = self._part(self._part_path(source.video_id))
        if part is not None and part.is_of(source):
            return part
        finished = self._finished.get(self._stored_id(source.video_id))
        return finished if finished is not None and finished.is_of(source) else None

    def status(self, source: Source) -> str | None:
        """The status of a video that is :meth:`done`, "ok" or "partial"; else None."""
        done = self.done(source)
        return None if done is None else done.status

    def failure(self, video: str | Source) -> FailureRecord | None:
        """Why a video failed, in this run, one it continues, or the one that wrote the file.

        Args:
            video: Its id; or its source, and then a failure of a source of another size or
                modification time does not count.
        """
        video_id = video.video_id if isinstance(video, Source) else video
        record = load_failure(self._failure_path(video_id))
        if record is None:
            record = self._finished_failures.get(self._stored_id(video_id))
        if record is None or not isinstance(video, Source) or record.source_size < 0:
            return record
        same = (record.source_size, record.source_mtime_ns) == (video.size, video.mtime_ns)
        return record if same else None

    def record_failure(self, record: FailureRecord) -> None:
        """Remember a failure, in place of an earlier one of that video. Raises StoreWriteError."""
        save_failure(self._failure_path(record.video_id), record)

    def clear_failure(self, video_id: str) -> None:
        """Forget a video's failure."""
        remove(self._failure_path(video_id))
        self._finished_failures.pop(self._stored_id(video_id), None)

    # What is written.

    def chunk_path(self, source: Source, index: int) -> Path:
        """Where `save_chunk` and `load_chunk` find chunk `index` of exactly this source."""
        return self._chunk_dir(source) / f"{index:06d}.npz"

    def part(
        self, source: Source, *, feature_shape: Sequence[int] = (), dtype: str = "float32"
    ) -> PartWriter:
        """A writer for one video; once it is finished the video is done and its chunks are removed.

        Args:
            source: The video.
            feature_shape: Shape of one frame's feature; D is its product.
            dtype: "float32" or "float16", of features.
        """
        path = self._part_path(source.video_id)

        def on_done(done: DoneVideo) -> None:
            self._parts[path] = done
            self._computes = True
            remove(self._chunk_dir(source))
            if done.status == "ok":
                self.clear_failure(source.video_id)

        return PartWriter(
            path,
            source,
            config_sha256=self._config_sha256,
            feature_shape=feature_shape,
            dtype=dtype,
            task=self._rows,
            on_done=on_done,
        )

    def finish(
        self,
        sources: Iterable[Source],
        failures: Iterable[FailureRecord],
        root_attrs: Mapping[str, Attr | Array],
        *,
        complete: bool,
        let_through: Callable[[], None] = lambda: None,
    ) -> bool:
        """Merge the earlier file and the parts into the new file, and put it in place.

        It is to be called with interrupts held back: HDF5 does not survive one while it writes.
        Videos and failures of other inputs are kept. A part replaces an earlier version of its
        video. A video whose source changed and now fails leaves the file. A failure of a video that
        is "ok" in the new file is dropped; so is an earlier one of a folder that could not be read
        then and has inputs in it now.

        Args:
            sources: The inputs of this run, in any order; it does not show in the file.
            failures: Failures to list besides those recorded; a later one of a video counts.
            root_attrs: Attributes of the file besides those the store sets.
            complete: Every input is done or failed. The parts folder is then removed; else it
                stays, so that the same command goes on.
            let_through: Of :func:`rrm_extract.signals.held_back`. Called where an interrupt does no
                harm, for the merge of a large file takes hours; nothing is lost if it raises.

        Returns:
            Whether a file was written; False when the one in place already says all this.

        Raises:
            StoreWriteError: The system refuses; nothing is lost.
            StoreError: It does not let the unfinished work be read; nothing is lost.
            StoreFormatError: Something done earlier was damaged since; the message says what to do.
            ValueError: `root_attrs` has an attribute that the store sets.
        """
        taken = sorted({*root_attrs} & {*_OWN_ROOT_ATTRS})
        if taken:
            raise ValueError(f"the store itself sets {', '.join(taken)}")
        inputs = {self._stored_id(source.video_id): source for source in sources}
        listed = self._all_failures(failures, folders_of=inputs)
        entries = self._entries(inputs, listed)
        kept = [r for i, r in listed.items() if i not in entries or entries[i].done.status != "ok"]
        attrs: dict[str, Attr | Array] = {
            **root_attrs,
            "format": FORMAT_NAME,
            "format_version": version_of(self._task),
            "complete": complete,
            "identity_json": self._identity_json,
            "config_sha256": self._config_sha256,
        }
        if self._task is not None:
            attrs["task"] = self._task
        if self._kernel_isa:
            attrs[KERNEL_ISA] = self._computed_on(entries)
        written = not self._says_all(entries, kept, attrs)
        if written:
            temp = temp_path(self.parts_dir / self.output.name)
            write_finished(
                self.output,
                temp,
                entries=[*entries.values()],
                failures=kept,
                root_attrs=attrs,
                task=self._task,
                let_through=let_through,
            )
            self._remember((entry.done for entry in entries.values()), kept, attrs)
        if complete:
            self._discard_parts()
        return written

    # Entering.

    def _take_over(self) -> None:
        """Look at what is there, refuse what does not fit, and make the parts folder ours."""
        job = self._unfinished()
        fits = job is not None and job.identity_json == self._identity_json
        self._read_finished()
        if self.overwrite:
            if job is None or not fits or not job.overwrite:
                self._discard_parts()
        elif job is None:
            self._discard_parts()  # left behind by a run that had finished
        elif not fits:
            raise self._mismatch(f"unfinished work in {self.parts_dir}", job.identity_json)
        with writing(self.parts_dir):
            self.parts_dir.mkdir(exist_ok=True)
            for folder in (self.parts_dir, *self._files(_CHUNKS)):
                for path in folder.iterdir():
                    if is_temp(path):
                        remove(path)
        if job is not None and (self._files(_PART) or self._files(_CHUNKS)):
            self._earlier_isas = job.kernel_isas
        isas = [*self._earlier_isas, *filter(None, [self._kernel_isa])]
        Job.of_this_process(
            identity_json=self._identity_json,
            overwrite=self.overwrite,
            format_version=version_of(self._task),
            kernel_isas=tuple(dict.fromkeys(isas)),
        ).save(self.parts_dir)

    def _unfinished(self) -> Job | None:
        """The run whose work lies in the parts folder, if there is any."""
        try:
            return load_job(self.parts_dir)
        except StoreFormatError:
            if self.overwrite:
                return None  # it does not matter what it was
            raise

    def _read_finished(self) -> None:
        if not self.output.exists():
            return
        try:
            file = FeatureFile(self.output)
        except StoreFormatError as error:
            if self.overwrite and _may_be_replaced(self.output):
                return
            raise StoreFormatError(
                f"{error}; it was left alone: move it away or choose another -o"
            ) from error
        with file:
            if self.overwrite:
                return  # it is ours, and all of it will be replaced
            attrs = file.attrs
            known = FORMAT_VERSION if file.version[0] == 1 else TASK_FORMAT_VERSION
            if file.version[1] > int(known.partition(".")[2]):
                raise StoreFormatError(
                    f"{self.output} has format version {attrs['format_version']}, this rrm-extract "
                    f"writes {known}; install a newer one or choose another -o"
                )
            if attrs["identity_json"] != self._identity_json:
                raise self._mismatch(str(self.output), attrs["identity_json"])
            self._remember(file.index, file.failures, attrs)

    def _remember(
        self,
        videos: Iterable[DoneVideo],
        failures: Iterable[FailureRecord],
        attrs: Mapping[str, Attr | Array],
    ) -> None:
        """Take note of what the file in place holds."""
        self._finished = {video.stored_id: video for video in videos}
        self._finished_failures = {self._stored_id(record.video_id): record for record in failures}
        self._finished_attrs = attrs

    def _mismatch(self, what: str, other_json: str) -> StoreMismatchError:
        old, new = json.loads(other_json), json.loads(self._identity_json)
        differing = [
            f"{key} was {_shown(old, key)}, is now {_shown(new, key)}"
            for key in sorted({*old, *new})
            if key not in old or key not in new or old[key] != new[key]
        ]
        return StoreMismatchError(
            f"{what} was made with another configuration: {'; '.join(differing)}. "
            "Use --overwrite to replace it, or another -o"
        )

    def _stored_id(self, video_id: str) -> str:
        return escape(video_id, task=self._task)

    # The parts folder.

    def _part_path(self, video_id: str) -> Path:
        return self.parts_dir / f"{file_key(video_id)}{_PART}"

    def _failure_path(self, video_id: str) -> Path:
        return self.parts_dir / f"{file_key(video_id)}{_FAILED}"

    def _chunk_dir(self, source: Source) -> Path:
        # The configuration too: a worker of an earlier run that was not killed with it might still
        # write the chunk that it was computing.
        key = file_key(source.video_id, source.size, source.mtime_ns, self._config_sha256)
        return self.parts_dir / f"{key}{_CHUNKS}"

    def _files(self, suffix: str) -> list[Path]:
        """What of a kind lies there, sorted. Raises StoreError where the folder cannot be read."""
        try:  # not glob(), which takes a folder that cannot be read for an empty one
            names = os.listdir(self.parts_dir)  # noqa: PTH208
        except FileNotFoundError:
            return []
        except OSError as error:
            refuse_to_blame(self.parts_dir, error)
            raise
        found = (name for name in names if name.endswith(suffix) and not name.startswith("."))
        return sorted(self.parts_dir / name for name in found)

    def _part(self, path: Path) -> DoneVideo | None:
        if path not in self._parts:
            self._parts[path] = None
            if path.exists():
                try:
                    self._parts[path] = read_part(
                        path, config_sha256=self._config_sha256, task=self._task
                    )
                except StoreFormatError:
                    remove(path)
        return self._parts[path]

    def _has_work(self) -> bool:
        return any(self._files(suffix) for suffix in (_PART, _CHUNKS, _FAILED))

    def _discard_parts(self) -> None:
        """Remove the parts folder, but for files that are not ours."""
        if not self.parts_dir.is_dir():
            return
        # Without its record nothing in the folder counts, so a kill from here on does no harm.
        remove(job_path(self.parts_dir))
        with writing(self.parts_dir):
            fsync_dir(self.parts_dir)
            for path in [*self.parts_dir.iterdir()]:
                if is_temp(path) or path.name.endswith((_PART, _CHUNKS, _FAILED)):
                    remove(path)
            if not any(self.parts_dir.iterdir()):
                self.parts_dir.rmdir()
        self._parts.clear()

    # Finishing.

    def _all_failures(
        self, given: Iterable[FailureRecord], *, folders_of: Iterable[str]
    ) -> dict[str, FailureRecord]:
        """By stored id; of folders above some stored ids only those that are one, or given."""
        recorded = (load_failure(path) for path in self._files(_FAILED))
        found = dict(self._finished_failures)
        for record in recorded:
            if record is not None:
                found[self._stored_id(record.video_id)] = record
        ids = set(folders_of)
        for folder in {str(above) for each in ids for above in PurePosixPath(each).parents} - ids:
            found.pop(folder, None)
        for record in given:
            found[self._stored_id(record.video_id)] = record
        return found

    def _entries(
        self, sources: Mapping[str, Source], failures: Mapping[str, FailureRecord]
    ) -> dict[str, Entry]:
        entries = {}
        for stored_id, done in self._finished.items():
            source = sources.get(stored_id)
            stale = source is not None and not done.is_of(source)
            if not (stale and stored_id in failures):
                entries[stored_id] = Entry(done, None)
        for path in self._files(_PART):
            part = self._part(path)
            if part is None:
                continue
            source = sources.get(part.stored_id)
            if source is None or part.is_of(source):
                entries[part.stored_id] = Entry(part, path)
        return entries

    def _computed_on(self, entries: Mapping[str, Entry]) -> str:
        """The instruction sets of the runs that made the videos, the first one first."""
        isas: list[str] = []
        if any(entry.part is None for entry in entries.values()):
            isas += str(self._finished_attrs.get(KERNEL_ISA, "")).split(", ")
        if any(entry.part is not None for entry in entries.values()):
            isas += self._earlier_isas
        if self._computes:
            isas.append(self._kernel_isa)
        return ", ".join(dict.fromkeys(filter(None, isas))) or self._kernel_isa

    def _says_all(
        self,
        entries: Mapping[str, Entry],
        failures: Sequence[FailureRecord],
        attrs: Mapping[str, Attr | Array],
    ) -> bool:
        """Whether the file in place would only be written again."""

        def lasting(found: Mapping[str, Attr | Array]) -> dict[str, Attr | Array]:
            return {
                name: storable(value) if isinstance(value, str) else value
                for name, value in found.items()
                if not is_volatile(name) and name not in MAKERS
            }

        def rows(records: Iterable[FailureRecord]) -> list[tuple[object, ...]]:
            return sorted(
                (
                    r.video_id,
                    storable(r.stage),
                    storable(r.error_type),
                    storable(r.message),
                    r.attempts,
                    r.source_size,
                    r.source_mtime_ns,
                )
                for r in records
            )

        old, new = lasting(self._finished_attrs), lasting(attrs)
        return (
            bool(old)
            and all(entry.part is None for entry in entries.values())
            and entries.keys() == self._finished.keys()
            and rows(failures) == rows(self._finished_failures.values())
            and old.keys() == new.keys()
            and all(same_value(old[name], new[name]) for name in old)
        )


def _shown(settings: Mapping[str, JSON], key: str) -> str:
    if key not in settings:
        return "not set"
    text = json.dumps(settings[key])
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _may_be_replaced(path: Path) -> bool:
    """Whether `--overwrite` may replace a file that cannot be read: a damaged HDF5, or nothing.

    Any other file was not made by this program, and a slip of the hand must not destroy it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except OSError:
        return False
    if start and start != _HDF5_SIGNATURE:
        return False
    try:
        with reading(path) as opened:
            return bool(opened.attrs.get("format") == FORMAT_NAME)
    except READ_ERRORS as error:
        refuse_to_blame(path, error)
        return True
