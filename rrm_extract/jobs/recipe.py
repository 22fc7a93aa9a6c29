"""From a loaded model to what computes features, made once and shared by all workers."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.config import FEATURES, JobConfig, threshold_text
from rrm_extract.engine import (
    NativeNetwork,
    NativeTransform,
    Network,
    choose_engine,
    open_network,
    supports,
)
from rrm_extract.engine.build import Packed
from rrm_extract.engine.compiled import CompiledPlan
from rrm_extract.engine.lower import results_of
from rrm_extract.engine.seen import Seen, seen_of
from rrm_extract.errors import (
    CalibrationError,
    ConfigError,
    ModelError,
    StoreWriteError,
    WeightsError,
)
from rrm_extract.graph import (
    Program,
    default_layer,
    fold,
    resolve_layer,
    select,
)
from rrm_extract.jobs.calibration import (
    AccumulatedCalibration,
    Calibration,
    Subject,
    TargetCalibration,
    check_layers,
    check_subject,
)
from rrm_extract.jobs.calibration import load as load_calibration
from rrm_extract.jobs.channels import channels_first
from rrm_extract.jobs.compiled import CompiledComputation, beside, save_compiled
from rrm_extract.jobs.control import AccumulatedControl, Control, TargetControl
from rrm_extract.jobs.extractor import pictures
from rrm_extract.jobs.plan import JobPlan
from rrm_extract.jobs.reading import Reading, make_reading
from rrm_extract.jobs.sampling import sampling_of
from rrm_extract.light_torchvision import torchvision
from rrm_extract.models import LoadedModel, Preprocess, Transform, load_model
from rrm_extract.models.registry import is_classifier
from rrm_extract.rrm import LayerCost, OrdinaryNetwork, Policy, RecurrentNetwork
from rrm_extract.video import SampledFrame

__all__ = [
    "Recipe",
    "all_notes",
    "check_device",
    "load_job_model",
    "load_plan",
    "load_recipe",
    "make_recipe",
    "network_input",
    "pooled",
    "prepare_process",
    "sampling_of",
    "save_computation",
    "save_recipe",
    "weights_notes",
]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """From frames to features.

    Attributes:
        program: the network up to the feature, batch normalisation folded, on the CPU.
        transform: (T, 3, H, W) uint8 RGB to (T, C, h, w) float32; the native one where the engine
            is native and there is one.
        layer: node name of the feature.
        threshold, policy, pool, time_batch, threads, device: as in the job.
        feature_shape: of one frame's stored feature before it is flattened.
        layers: the linear layers with their sizes; densities are not filled in.
        engine: "native" or "torch".
        isa: instruction set of the native kernels.
        engine_note: why the engine, or its speed, is not what could be expected; mostly empty.
        precision: "fp32" or "bf16".
        input_shape: (C, h, w) of a frame after the transform.
        packed: weights in the order of the native kernels.
        compiled: the network without torch, where the native engine runs all of it.
        exact: the same in fp32, where the control needs it and ``compiled`` has another precision.
        control: what decides about key frames and thresholds.
        calibration: where its limit of the error comes from.
        reading: what makes objects or people of the feature; None where it is stored.
    """

    program: Program
    transform: Transform
    layer: str
    threshold: float | Mapping[str, float]
    policy: Policy
    pool: str
    time_batch: int
    threads: int
    device: str
    feature_shape: tuple[int, ...]
    layers: tuple[LayerCost, ...]
    engine: str
    isa: str
    engine_note: str
    precision: str
    input_shape: tuple[int, int, int]
    packed: dict[str, Packed]
    compiled: CompiledPlan | None
    exact: CompiledPlan | None
    control: Control
    calibration: Calibration | None
    reading: Reading | None

    @property
    def n_layers(self) -> int:
        """Number of linear layers."""
        return len(self.layers)

    def open(self) -> RecipeNetwork:
        """From pictures to features, with a state of its own."""
        return RecipeNetwork(self)

    def without_torch(self) -> CompiledComputation | None:
        """The same for workers that do not import torch, if that is possible."""
        if self.compiled is None or not isinstance(self.transform, NativeTransform):
            return None
        if self.reading is not None:
            return None
        return CompiledComputation(
            plan=self.compiled,
            preprocess=self.transform.describe(),
            pool=self.pool,
            time_batch=self.time_batch,
            feature_shape=self.feature_shape,
            n_layers=self.n_layers,
            control=self.control,
            exact=self.exact,
        )

    def network(self) -> Network:
        """A recurrent network with a state of its own, on the job's device."""
        if self.engine == "native":
            return open_network(
                self.program,
                input_shape=self.input_shape,
                engine="native",
                threshold=self.threshold,
                policy=self.policy,
                precision=self.precision,
                batch=self.time_batch,
                packed=self.packed,
            )
        device = torch.device(self.device)
        program = self.program if device.type == "cpu" else self.program.to(device)
        return RecurrentNetwork(program, threshold=self.threshold, policy=self.policy)


class RecipeNetwork:
    """See :class:`rrm_extract.jobs.extractor.FrameNetwork`."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._network = recipe.network()
        self._ordinary: OrdinaryNetwork | None = None

    def reset(self) -> None:
        """Forgets the past: the next frame is a key frame."""
        self._network.reset()

    def key_frame(self) -> None:
        """The next frame is a key frame."""
        self._network.key_frame()

    def input(self, batch: list[SampledFrame], /) -> Tensor:
        """(T, C, h, w) float32 on the recipe's device."""
        return network_input(batch, self._recipe)

    def track(self) -> None:
        """Has what is truncated counted from here on."""
        self._network.track()

    def scale_thresholds(self, factor: float, /) -> None:
        """All thresholds times a factor, from the next frame on."""
        self._network.scale_thresholds(factor)

    def shared_snapshots(self) -> list[list[str]]:
        """Names of the linear operations, those together that always hold back the same."""
        return self._network.shared_snapshots()

    def run(self, x: Tensor, /) -> tuple[tuple[NDArray[np.float32], ...], Seen]:
        """(T, D) features, and what the layers saw."""
        (output,), seen = self._network.run(x)
        return (self._flat(output),), seen_of(seen)

    def exact(self, x: Tensor, /) -> NDArray[np.float32]:
        """(T, D) features of the dense network, in fp32."""
        if self._ordinary is None:
            program = self._recipe.program
            self._ordinary = OrdinaryNetwork(
                program if x.device.type == "cpu" else program.to(x.device)
            )
        (output,) = self._ordinary(x)
        return self._flat(output)

    def _flat(self, output: Tensor) -> NDArray[np.float32]:
        flat: NDArray[np.float32] = (
            pooled(output, self._recipe.pool).reshape(len(output), -1).float().cpu().numpy()
        )
        return flat


def load_plan(config: JobConfig) -> tuple[JobPlan, Recipe]:
    """Loads the model of a job, and its calibration if it has one.

    Raises:
        UsageError: the request is wrong.
    """
    model = load_job_model(config)
    recipe = make_recipe(model, config)
    calibration = recipe.calibration
    plan = JobPlan(
        weights_id=model.weights_id,
        weights_text=model.weights_text,
        weights_sha256=model.weights_sha256,
        preprocess=model.preprocess,
        layer=recipe.layer,
        feature_shape=recipe.feature_shape,
        layers=recipe.layers,
        engine=recipe.engine,
        precision=recipe.precision,
        kernel_isa=recipe.isa or _processor_of(torch.device(recipe.device)),
        calibration=None if calibration is None else calibration.to_json(),
        # As text: torch's own class of versions would need torch wherever it is read.
        versions={"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)},
        notes=all_notes(model, recipe),
        task=None if recipe.reading is None else recipe.reading.plan,
    )
    return plan, recipe


def _processor_of(device: torch.device) -> str:
    """The instruction set that PyTorch uses there, or what a device without one is called."""
    if device.type == "cpu":
        return torch.backends.cpu.get_cpu_capability()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def load_job_model(config: JobConfig) -> LoadedModel:
    """Loads the model of a job.

    Raises:
        ConfigError: it is known to be none for the job's task, before its weights are asked for.
        UsageError: it cannot be had.
    """
    if config.task != FEATURES and is_classifier(config.model):
        can = {"detect": "yolov2, tiny_yolov2, or darknet:FILE.cfg with a [region] section"}
        msg = (
            f"--task {config.task} cannot be done by {config.model}, a classifier; expected "
            f"--model {can.get(config.task, 'rtpose')}"
        )
        raise ConfigError(msg)
    return load_model(config.model, weights=config.weights, preprocess=config.preprocess)


def prepare_process(threads: int) -> None:
    """Fixes what torch's results depend on: the number of threads, full precision on a GPU."""
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def make_recipe(
    model: LoadedModel, config: JobConfig, *, layer_can_be_chosen: bool = True
) -> Recipe:
    """Traces the model and finds the feature's shape and each layer's size.

    Args:
        model: of the job.
        config: the job.
        layer_can_be_chosen: whether the caller's --layer names the feature, as far as the task
            leaves a choice.

    Raises:
        TraceError, LayerError, ConfigError: the request does not fit the model.
        WeightsError: the weights lack parameters that the feature depends on.
    """
    choice = choose_engine(config.engine, device=config.device, precision=config.precision)
    check_device(config.device)
    reading = make_reading(model, config)
    whole = model.trace()
    layer = _layer(whole, config)
    program = select(whole, (layer,))
    another_layer = layer_can_be_chosen and config.task == FEATURES
    check_weights(program, model, layer, another_layer=another_layer)
    program = fold(program)
    if config.pool == "avg":
        program = channels_first(program, model.input_shape)
    policy: Policy = "paper" if config.policy == "paper" else "bounded"
    calibration = _calibration(config, subject_of(model, config, layer, choice.engine))
    threshold: float | Mapping[str, float] = config.threshold
    if isinstance(calibration, TargetCalibration):
        threshold = calibration.thresholds

    def native(precision: str) -> NativeNetwork:
        return NativeNetwork(
            program,
            input_shape=model.input_shape,
            threshold=threshold,
            policy=policy,
            precision=precision,
            batch=config.time_batch,
        )

    trial: Network
    if choice.engine == "native":
        trial = native(config.precision)
    else:
        trial = RecurrentNetwork(program, threshold=threshold, policy=policy)
    control = _control(config, calibration, program)
    exact = None
    if control.audit > 0 and choice.engine == "native" and config.precision != "fp32":
        exact = native("fp32").compiled()
    frame = torch.zeros(1, *model.input_shape, dtype=torch.float32, device="cpu")
    try:
        output = trial.step(frame)
    except (RuntimeError, ValueError, TypeError, IndexError):
        results_of(program, model.input_shape)  # says which operation takes no such frame
        raise
    if not isinstance(output, Tensor) or not output.is_floating_point():
        msg = (
            f"layer {layer!r} gives {type(output).__name__}, not one float tensor; "
            "choose another --layer (rrm-extract models NAME --layers lists them)"
        )
        raise ConfigError(msg)
    if output.shape[:1] != (1,):
        msg = (
            f"layer {layer!r} gives a tensor of shape {tuple(output.shape)} for one frame, not one "
            "row; choose another --layer (rrm-extract models NAME --layers lists them)"
        )
        raise ConfigError(msg)
    transform = model.transform
    if choice.engine == "native" and isinstance(transform, Preprocess) and supports(transform):
        transform = NativeTransform(transform)
    return Recipe(
        program=program,
        transform=transform,
        layer=layer,
        threshold=threshold,
        policy=policy,
        pool=config.pool,
        time_batch=config.time_batch,
        threads=config.threads,
        device=config.device,
        feature_shape=tuple(pooled(output, config.pool).shape[1:]),
        layers=trial.stats(),
        engine=choice.engine,
        isa=choice.isa,
        engine_note=choice.reason,
        precision=config.precision,
        input_shape=model.input_shape,
        packed=trial.packed if isinstance(trial, NativeNetwork) else {},
        compiled=trial.compiled() if isinstance(trial, NativeNetwork) else None,
        exact=exact,
        control=control,
        calibration=calibration,
        reading=reading,
    )


def _layer(whole: Program, config: JobConfig) -> str:
    """Node name of the feature.

    Raises:
        LayerError: there is no such layer.
        ConfigError: a task was given with another layer than the one it reads.
    """
    if config.task == FEATURES:
        return default_layer(whole) if config.layer is None else resolve_layer(whole, config.layer)
    (last,) = whole.outputs
    if config.layer is not None and resolve_layer(whole, config.layer) != last:
        msg = f"--task {config.task} reads layer {last}, not {config.layer}; leave --layer away"
        raise ConfigError(msg)
    return last


def subject_of(model: LoadedModel, config: JobConfig, layer: str, engine: str) -> Subject:
    """What a calibration for this network is for."""
    return Subject(
        model=config.model_name,
        weights_sha256=model.weights_sha256,
        layer=layer,
        pool=config.pool,
        precision=config.precision,
        preprocess=model.preprocess,
        engine=engine,
    )


def _calibration(config: JobConfig, subject: Subject) -> Calibration | None:
    """The calibration that a job names.

    Raises:
        CalibrationError: it cannot be read, or is for another network or threshold.
    """
    where = config.thresholds or config.aecs
    if where is None:
        return None
    kind = "target" if config.thresholds is not None else "accumulated"
    calibration = load_calibration(Path(where), kind=kind)
    check_subject(calibration, subject, where=where)
    if isinstance(calibration, AccumulatedCalibration) and (
        calibration.threshold != config.threshold
    ):
        msg = (
            f"{where} was calibrated with --threshold {threshold_text(calibration.threshold)}, "
            f"here it is {threshold_text(config.threshold)}; expected the same"
        )
        raise CalibrationError(msg)
    return calibration


def _control(config: JobConfig, calibration: Calibration | None, program: Program) -> Control:
    scheme: TargetControl | AccumulatedControl | None = None
    target: float | None = None
    if isinstance(calibration, TargetCalibration):
        target = calibration.target_error
        names = program.linear_names()
        layers = [names[op.name] for op in program.linear_ops]
        check_layers(calibration, layers, where=str(config.thresholds))
        scheme = calibration.control(layers)
    elif calibration is not None and config.error_limit is not None:
        scheme = calibration.control(config.error_limit)
    return Control(
        cuts=config.cuts == "key-frame",
        refresh=config.refresh,
        audit=float(Fraction(config.audit)),
        scheme=scheme,
        target=target,
    )


def network_input(batch: list[SampledFrame], recipe: Recipe) -> Tensor:
    """The network's input for consecutive frames, (T, C, h, w) on the recipe's device.

    A frame that is shown several times is transformed once; sizes may differ between frames.
    """
    images, positions = pictures(batch)
    if isinstance(recipe.transform, NativeTransform):
        x = recipe.transform.images(images)
    else:
        x = _transformed(images, recipe.transform)
    return (x if len(images) == len(batch) else x[positions]).to(recipe.device)


def _transformed(images: list[NDArray[np.uint8]], transform: Transform) -> Tensor:
    by_size: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        by_size.setdefault(image.shape, []).append(position)
    outputs = [torch.empty(0)] * len(images)
    for same_size in by_size.values():
        pixels = torch.from_numpy(np.stack([images[position] for position in same_size]))
        for position, output in zip(same_size, transform(pixels.permute(0, 3, 1, 2)), strict=True):
            outputs[position] = output
    return torch.stack(outputs)


def check_weights(program: Program, model: LoadedModel, layer: str, *, another_layer: bool) -> None:
    """Refuses a Program that reads parameters the weights did not give.

    Args:
        program: up to the layer.
        model: that it is of.
        layer: node name of the feature.
        another_layer: whether another one can be asked for.

    Raises:
        WeightsError: names the first of them.
    """
    used = {name for op in program.ops for name in op.parameters}
    missing = sorted(used & model.missing_keys)
    if missing:
        msg = (
            f"weights {model.weights_id} lack {len(missing)} parameters that layer {layer!r} of "
            f"{model.name} depends on (first: {missing[0]}); give weights that have them"
            f"{', or an earlier --layer' if another_layer else ''}"
        )
        raise WeightsError(msg)


def all_notes(model: LoadedModel, recipe: Recipe) -> tuple[str, ...]:
    """What a user should know about the weights, and about the engine that was chosen."""
    return (*weights_notes(model), *filter(None, [recipe.engine_note]))


def weights_notes(model: LoadedModel) -> tuple[str, ...]:
    """What a user should know about how the weights fit the network; empty if they fit whole.

    And whose transform was assumed, where the weights do not say theirs.
    """
    notes = []
    for keys, what in (
        (model.missing_keys, "lack {} parameters that the chosen layer does not need"),
        (model.unexpected_keys, "have {} entries that the network has no use for"),
    ):
        if keys:
            some = ", ".join(sorted(keys)[:3]) + (", ..." if len(keys) > 3 else "")
            note = f"weights {model.weights_id} {what.format(len(keys))}: {some}"
            if keys is model.unexpected_keys and 5 * len(keys) > len(model.module.state_dict()):
                note = f"warning: {note}; are they of another network?"
            notes.append(note)
    if model.assumed_transform is not None:
        notes.append(
            f"weights {model.weights_id} do not say how frames become their input; it is assumed "
            f"to be as for {model.assumed_transform} (--preprocess says otherwise)"
        )
    return tuple(notes)


def pooled(feature: Tensor, pool: str) -> Tensor:
    """Averages a (T, C, H, W) feature map over space when ``pool`` is "avg"."""
    return feature.mean(dim=(2, 3)) if pool == "avg" and feature.dim() == 4 else feature


def check_device(name: str) -> None:
    """Refuses a device that is not there, rather than computing elsewhere.

    Raises:
        ConfigError: the name is no torch device, or there is no such device here.
    """
    try:
        torch.zeros(1, device=torch.device(name)).cpu()  # back again: "meta" has no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        msg = f"device {name!r} cannot be used here: {reason}; expected cpu, or a CUDA device"
        raise ConfigError(msg) from error


def save_computation(recipe: Recipe, path: Path) -> None:
    """Writes what workers compute, without torch where that is possible.

    Raises:
        StoreWriteError: no space or no permission.
    """
    computation = recipe.without_torch()
    if computation is None:
        save_recipe(recipe, path)
        return
    save_compiled(computation, path)
    # Read only if something is not finite, so that packing the weights again does not matter.
    save_recipe(replace(recipe, packed={}), beside(path))


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Writes a recipe for :func:`load_recipe`.

    Raises:
        StoreWriteError: no space or no permission.
        ModelError: a part of the network cannot be pickled.
    """
    try:
        with path.open("wb") as file:
            kept = _FirstError(file)
            # The compiled network has the packed weights a second time.
            plain = replace(recipe, compiled=None, exact=None)
            torch.save(plain, cast(BinaryIO, kept))
            kept.check()
    except (AttributeError, TypeError, RuntimeError, pickle.PicklingError) as error:
        msg = (
            f"the network cannot be handed to workers ({error}); expected functions and classes "
            "that can be imported, none made inside of others"
        )
        raise ModelError(msg) from error
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"cannot write {path}: {reason}; make room, then run the same command again"
        raise StoreWriteError(msg) from error


class _FirstError:
    """A file whose writes never raise; the first error is kept for :meth:`check`.

    torch's archive writer goes on after a failed write and then raises a RuntimeError about an
    "unexpected pos", in which the reason is lost.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        if self._error is None:
            try:
                self._file.flush()
            except OSError as error:
                self._error = error

    def check(self) -> None:
        self.flush()
        if self._error is not None:
            raise self._error


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe that this job has written.

    The weights are mapped from the file, not copied: all workers share one copy in memory.
    """
    recipe = torch.load(path, mmap=True, weights_only=False)
    if not isinstance(recipe, Recipe):
        msg = f"{path} holds {type(recipe).__name__}, expected a recipe"
        raise TypeError(msg)
    return recipe
