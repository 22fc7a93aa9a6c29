"""The table of options, as the fields of `JobConfig`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from rrm_extract.config import kinds
from rrm_extract.config.kinds import DEFAULT_PERCENTILE, DEFAULT_THRESHOLD, MAX_FPS, Kind
from rrm_extract.config.option import Option, option_field, shown
from rrm_extract.errors import ConfigError
from rrm_extract.given_file import lack_of_file

FEATURES = "features"
"""The task of a job whose frames get features."""

DARKNET = "darknet:"
"""Before the path of a Darknet .cfg file, as a model."""

TASK_OPTIONS: dict[str, tuple[str, ...]] = {
    "detect": ("score_threshold", "overlap"),
    "pose": ("score_threshold", "field_threshold", "least_parts", "least_score"),
}
"""The other tasks, with the options that only they have."""


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """Everything that can be said about one extraction job; values are checked on creation.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    inputs: tuple[str, ...] = option_field(
        kinds.PATHS,
        (),
        "Videos: files, folders (searched recursively), globs, or a .txt or .csv list of files; "
        "lines of a .txt list that begin with # are passed over.",
        "videos/",
    )
    output: str | None = option_field(
        kinds.MAYBE_PATH, None, "HDF5 file to write.", "feats.h5", short="-o"
    )
    root: str | None = option_field(
        kinds.MAYBE_FOLDER,
        None,
        "Folder that video names in the output are relative to; by default the input folder.",
        "datasets/ucf101",
    )
    include: tuple[str, ...] = option_field(
        kinds.PATTERNS,
        (),
        "Which files of a folder are taken; by default those with a video's extension.",
        "'*.avi'",
    )
    model: str = option_field(
        dataclasses.replace(
            kinds.NAME,
            expects="a model's name, a .onnx, .dcz or .net file, darknet:FILE.cfg or "
            "package.module:factory",
            is_path=True,
        ),
        "resnet18",
        "Network: a name that `rrm-extract models` lists, timm/NAME, FILE.onnx, FILE.dcz (of "
        "compress), FILE.net, darknet:FILE.cfg or package.module:factory.",
        "vgg16",
        decides_result=True,
    )
    task: str = option_field(
        kinds.choice(FEATURES, *TASK_OPTIONS),
        FEATURES,
        "What is stored of each frame: a feature, or in its place objects (yolov2 and its kin) or "
        "people (rtpose).",
        "detect",
        decides_result=True,
    )
    weights: str = option_field(
        dataclasses.replace(
            kinds.NAME, expects="'default', a weights name, a file or random[:SEED]", is_path=True
        ),
        "default",
        "Weights: default, a torchvision weights name, a .safetensors, .pth, .dcz, .weights or "
        ".caffemodel file, or random[:SEED].",
        "weights/resnet18.safetensors",
        decides_result=True,
    )
    layer: str | None = option_field(
        Kind(
            read=kinds.or_none(kinds.text), expects="a layer's name", metavar="NAME", is_text=True
        ),
        None,
        "Layer whose output is the feature; by default the last one before the classifier.",
        "layer4",
        decides_result=True,
    )
    pool: str = option_field(
        kinds.choice("avg", "none"),
        "avg",
        "What to do with a feature map: avg takes its mean over space, none keeps all of it.",
        "none",
        decides_result=True,
    )
    score_threshold: float | None = option_field(
        kinds.MAYBE_UNIT,
        None,
        "With a task: smallest score of an object, by default 0.25, or of a part of a body, by "
        "default 0.1.",
        "0.5",
        decides_result=True,
    )
    overlap: float | None = option_field(
        kinds.MAYBE_UNIT,
        None,
        "With --task detect: of two objects of a class that overlap more, the better one stays; by "
        "default 0.45.",
        "0.3",
        decides_result=True,
    )
    field_threshold: float | None = option_field(
        kinds.MAYBE_UNIT,
        None,
        "With --task pose: smallest share of the field along a limb, by default 0.05.",
        "0.1",
        decides_result=True,
    )
    least_parts: int | None = option_field(
        kinds.MAYBE_COUNT,
        None,
        "With --task pose: parts that make a person, by default 4.",
        "6",
        decides_result=True,
    )
    least_score: float | None = option_field(
        kinds.MAYBE_AT_LEAST_ZERO,
        None,
        "With --task pose: smallest score that a person has, by default 0.4.",
        "0.8",
        decides_result=True,
    )
    preprocess: str | dict[str, Any] | None = option_field(  # noqa: RUF009 -- immutable default
        Kind(
            read=kinds.preprocess,
            expects="a name, a file or a mapping of plain values",
            metavar="SPEC",
            is_path=True,
        ),
        None,
        "How frames become network input; by default what the weights were trained with.",
        "preprocess.json",
        decides_result=True,
    )
    threshold: float | dict[str, float] = option_field(  # noqa: RUF009 -- immutable default
        Kind(
            read=kinds.threshold,
            expects="a number of 0 or more, or one for each layer",
            metavar="NUMBER[,LAYER=NUMBER...]",
        ),
        DEFAULT_THRESHOLD,
        "Changes up to this size are not propagated; 0 is exact. Layers may have their own.",
        "1e-4,layer4=1e-3",
        decides_result=True,
    )
    policy: str = option_field(
        kinds.choice("bounded", "paper"),
        "bounded",
        "What becomes of changes below the threshold: bounded keeps them for later frames, paper "
        "drops them.",
        "paper",
        decides_result=True,
    )
    target_error: float | None = option_field(
        kinds.MAYBE_ERROR,
        None,
        "Relative error of the features that shall be kept: thresholds are calibrated on a sample "
        "of the inputs, and the error is watched.",
        "0.01",
        decides_result=True,
    )
    percentile: float = option_field(
        kinds.PERCENT,
        DEFAULT_PERCENTILE,
        "Share of frames, in percent, that shall keep the target error.",
        "99",
        decides_result=True,
    )
    thresholds: str | None = option_field(
        kinds.MAYBE_PATH,
        None,
        "Thresholds and target error that calibrate has found; in place of --threshold.",
        "thresholds.json",
        decides_result=True,
    )
    aecs: str | None = option_field(
        kinds.MAYBE_PATH,
        None,
        "With the policy paper: its accumulated-error control, as calibrate has fitted it.",
        "aecs.json",
        decides_result=True,
    )
    error_limit: float | None = option_field(
        kinds.MAYBE_ERROR,
        None,
        "With --aecs: predicted relative error past which a frame becomes a key frame.",
        "0.01",
        decides_result=True,
    )
    audit: str = option_field(
        kinds.SHARE,
        "0",
        "Share of frames, chosen at random, that the dense network computes as well; their true "
        "error is stored.",
        "1/500",
        decides_result=True,
    )
    cuts: str = option_field(
        kinds.choice("key-frame", "ignore"),
        "key-frame",
        "What becomes of the first frame after a cut or a flash.",
        "ignore",
        decides_result=True,
    )
    refresh: float | None = option_field(
        kinds.MAYBE_SECONDS,
        None,
        "Seconds after which a frame becomes a key frame, within a chunk.",
        "60",
        decides_result=True,
    )
    fps: str = option_field(
        Kind(
            read=kinds.frame_rate,
            expects=f"frames per second above 0 and up to {MAX_FPS}, a fraction, or 'native'",
            metavar="RATE",
        ),
        "24",
        "Frames per second to sample: a number, a fraction, or native for every frame.",
        "30000/1001",
        decides_result=True,
    )
    chunk: float = option_field(
        kinds.SECONDS,
        10.0,
        "Seconds between key frames, which are computed densely; also the unit of parallel work.",
        "10",
        decides_result=True,
    )
    dtype: str = option_field(
        kinds.choice("float32", "float16"),
        "float32",
        "Number type of the features in the file.",
        "float16",
        decides_result=True,
    )
    engine: str = option_field(
        kinds.choice("auto", "native", "torch"),
        "auto",
        "What runs the network: native is the compiled engine for CPUs, torch plain PyTorch; auto "
        "takes native where it can.",
        "torch",
    )
    precision: str = option_field(
        kinds.choice("fp32", "bf16"),
        "fp32",
        "Numbers of the native engine: bf16 has weights and deltas in bfloat16, sums in fp32.",
        "bf16",
        decides_result=True,
    )
    device: str = option_field(
        dataclasses.replace(kinds.NAME, expects="the name of a torch device", metavar="DEVICE"),
        "cpu",
        "Torch device to compute on.",
        "cuda:0",
        decides_result=True,  # in the last bits
    )
    workers: int | None = option_field(
        kinds.MAYBE_COUNT,
        None,
        "Worker processes; by default one for each usable core (on the torch engine for each "
        "--threads of them), and one on a GPU. Results do not depend on it.",
        "4",
    )
    threads: int = option_field(
        kinds.COUNT,
        1,
        "Threads of each worker of the torch engine; a native one has one.",
        "2",
        decides_result=True,  # in the last bits
    )
    time_batch: int = option_field(
        kinds.COUNT,
        8,
        "Frames taken through one layer before the next layer.",
        "16",
        decides_result=True,  # and, above threshold 0, which layers run dense
    )
    timeout: float = option_field(
        kinds.SECONDS,
        120.0,
        "Seconds that a worker may be silent before it is replaced.",
        "300",
    )
    retries: int = option_field(
        kinds.COUNT_OR_ZERO,
        2,
        "How often a chunk is tried again after its worker died or fell silent.",
        "0",
    )
    overwrite: bool = option_field(
        kinds.SWITCH, False, "Discard an existing output and begin again.", "true"
    )
    retry_failed: bool = option_field(
        kinds.SWITCH, False, "Try videos again that failed in an earlier run.", "true"
    )
    json_log: str | None = option_field(
        kinds.MAYBE_PATH,
        None,
        "File to which events are appended, one JSON object a line.",
        "log.jsonl",
    )
    progress: bool | None = option_field(
        kinds.MAYBE_SWITCH, None, "Show a progress bar; by default only on a terminal.", "false"
    )

    def __post_init__(self) -> None:
        """Checks every value and brings it into its one written form."""
        for option in _rows(type(self)):
            object.__setattr__(self, option.name, option.check(getattr(self, option.name)))
        self._check_together()
        self._check_task()

    def _check_together(self) -> None:
        """Options that only make sense with, or without, one another."""
        says = {
            "--thresholds": self.thresholds is not None,
            "--target-error": self.target_error is not None,
            "--threshold": self.threshold != DEFAULT_THRESHOLD,
        }
        given = [option for option, is_given in says.items() if is_given]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} were given together; expected one of them")
        if self.policy == "paper" and given and given != ["--threshold"]:
            raise ConfigError(
                f"{given[0]} needs --policy bounded; with paper the error is limited by --aecs and "
                "--error-limit"
            )
        if self.policy != "paper" and (self.aecs is not None or self.error_limit is not None):
            raise ConfigError("--aecs and --error-limit need --policy paper; expected it as well")
        if self.percentile != DEFAULT_PERCENTILE and self.thresholds is not None:
            raise ConfigError(
                "--percentile needs --target-error; with --thresholds it is the file's own: "
                "expected no --percentile"
            )
        if self.percentile != DEFAULT_PERCENTILE and self.target_error is None:
            raise ConfigError("--percentile needs --target-error; expected it as well")
        if (self.aecs is None) != (self.error_limit is None):
            one, other = ("--aecs", "--error-limit")[:: -1 if self.aecs is None else 1]
            raise ConfigError(f"{one} was given without {other}; expected both or neither")

    def _check_task(self) -> None:
        """The options of a task are given with it alone, and what it decides is not given."""
        known = TASK_OPTIONS.get(self.task, ())
        for name in sorted({name for names in TASK_OPTIONS.values() for name in names}):
            if name not in known and getattr(self, name) is not None:
                tasks = " or ".join(task for task, names in TASK_OPTIONS.items() if name in names)
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} needs --task {tasks}; expected it as well")
        if self.task == FEATURES:
            return
        if self.dtype != "float32":
            raise ConfigError(
                f"--dtype {self.dtype} is for features, which --task {self.task} does not store; "
                "leave it away"
            )
        # The raw output is read as it is.
        object.__setattr__(self, "pool", "none")

    @property
    def frame_rate(self) -> Fraction | None:
        """Frames per second to sample, or None for every frame as it is."""
        return None if self.fps == "native" else Fraction(self.fps)

    @property
    def chunk_seconds(self) -> Fraction:
        """Seconds between key frames, exactly as written: 0.1 is one tenth."""
        return Fraction(str(self.chunk))

    @classmethod
    def identity_keys(cls) -> tuple[str, ...]:
        """Names of the options that decide results, in the order of the table."""
        return tuple(option.name for option in _rows(cls) if option.decides_result)

    def identity(self) -> dict[str, Any]:
        """The options that decide results, of types that JSON has."""
        whole = self.to_mapping()
        others = {name for names in TASK_OPTIONS.values() for name in names}
        # A job for features has the identity that it had before there were tasks.
        unsaid = {"task", *others} if self.task == FEATURES else others - {*self.task_options}
        return {name: whole[name] for name in self.identity_keys() if name not in unsaid}

    @property
    def model_name(self) -> str:
        """The network as it was asked for; a file without its folder."""
        kind = DARKNET if self.model.startswith(DARKNET) else ""
        path = Path(self.model.removeprefix(kind))
        return f"{kind}{path.name}" if lack_of_file(path) is None else self.model

    @property
    def task_options(self) -> dict[str, Any]:
        """The options of the task that were given, and None for the others."""
        return {name: getattr(self, name) for name in TASK_OPTIONS.get(self.task, ())}

    def to_mapping(self) -> dict[str, Any]:
        """All options, of types that JSON has; `from_mapping` gives an equal job back."""
        return {name: kinds.json_value(value) for name, value in vars(self).items()}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object], *, where: str | None = None) -> JobConfig:
        """A job from some of its options; the others have their defaults.

        Args:
            mapping: option names to values as YAML, JSON or the command line give them. Paths
                are taken as they are: nothing is expanded.
            where: the file it came from, for messages; None means the command line.

        Raises:
            ConfigError: an unknown key, a wrong type, or a value out of range.
        """
        checked = check_mapping(mapping, where=where)
        if checked.get("pool") == "avg" and checked.get("task", FEATURES) != FEATURES:
            raise ConfigError(
                f"--pool avg does not go with --task {checked['task']}, which reads the last layer "
                "as it is; leave it away"
            )
        return cls(**checked)

    def replace(self, **changes: object) -> JobConfig:
        """A copy with some options changed.

        Raises:
            ConfigError: an unknown key, a wrong type, or a value out of range.
        """
        return dataclasses.replace(self, **check_mapping(changes, where=None))


def _rows(cls: type[JobConfig]) -> tuple[Option, ...]:
    return tuple(Option(name=f.name, **f.metadata["option"]) for f in dataclasses.fields(cls))


OPTIONS: tuple[Option, ...] = _rows(JobConfig)
"""Every option of a job, in the order in which help shows them."""


def check_mapping(mapping: Mapping[str, object], *, where: str | None) -> dict[str, Any]:
    """Checks some options; raises ConfigError for an unknown key or an unfit value."""
    by_name = {option.name: option for option in OPTIONS}
    checked = {}
    for key, value in mapping.items():
        if key not in by_name:
            raise ConfigError(unknown_key(key, where=where))
        checked[key] = by_name[key].check(value, where=where)
    return checked


def unknown_key(key: object, *, where: str | None) -> str:
    """The message for a key that no option has."""
    names = [option.name for option in OPTIONS]
    near = difflib.get_close_matches(str(key).lower().replace("-", "_"), names, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"
    return f"{where or 'options'}: unknown key {shown(key)}; {advice}"


def parse_threshold(text: str) -> float | dict[str, float]:
    """Reads a threshold as the command line has it.

    Args:
        text: one number for the whole network, `"1e-4"`, or with layers that have their own,
            `"1e-4,layer4=1e-3"`. Without a number of its own the network has the default.

    Returns:
        A number, or numbers by layer name with the network's own under "default".

    Raises:
        ConfigError: not a number, negative, not finite, or a layer named twice.
    """
    (option,) = (option for option in OPTIONS if option.name == "threshold")
    checked: float | dict[str, float] = option.check(text)
    return checked
