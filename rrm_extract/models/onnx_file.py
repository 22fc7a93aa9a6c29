"""Networks in ONNX files, through onnx2torch."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..errors import ModelError, PreprocessError, WeightsError
from ..given_file import lack_of_file
from .checkpoint import all_nan_keys
from .loaded import LoadedModel, Transform, freeze, hash_joined, hash_state
from .onnx_check import check_conversion, graph_text, input_kind, inputs_of, is_close
from .onnx_graph import inline_constants
from .onnx_plain import RuntimeSlice, make_plain, repair_slices
from .preprocess import EXAMPLE
from .weights import WeightsChoice, seeded

__all__ = ["load_onnx"]

_CHECK_FRAMES = 3
"""Frames in the batch that is compared with the same frames one by one."""


def load_onnx(name: str, choice: WeightsChoice, preprocess: Transform | None) -> LoadedModel:
    """Convert the file ``name`` to a module that torch.fx traces and any batch size fits.

    Raises:
        ModelError: the extra is not installed, or the file cannot be read or converted.
        WeightsError: other weights are asked for than the file's own.
        PreprocessError: the file does not say what its input means, and neither does
            ``preprocess``; or they disagree about its shape.
    """
    if choice.kind != "default":
        raise WeightsError(
            f"{name} carries its own weights; {choice.text!r} cannot replace them: leave "
            "--weights away"
        )
    path = Path(name)
    if lack := lack_of_file(path):
        raise ModelError(f"model file {name!r} {lack}")
    proto = _read(path)
    declared = _input_dims(name, proto)
    if preprocess is None:
        raise PreprocessError(
            f"{name} does not say what its input is (it takes {_dims(declared)}): pass "
            f"--preprocess imagenet, or such as --preprocess {EXAMPLE}"
        )
    batch = _check_dims(name, declared, preprocess.output_shape)
    kind = input_kind(proto)
    with seeded(None):  # the layers are made with random weights first
        converted = _convert(name, proto)
        freeze(converted)
        example = _noise((batch, *preprocess.output_shape), kind)
        module, leaf_modules, outputs = _simplify(name, converted, example)
    check_conversion(name, path, proto, example, outputs)
    _check_batches(name, module, _noise((_CHECK_FRAMES, *preprocess.output_shape), kind))
    return LoadedModel(
        name=name,
        module=module,
        transform=preprocess,
        preprocess=preprocess.describe(),
        input_shape=preprocess.output_shape,
        weights_id=f"file:{path.name}",
        weights_sha256=hash_joined(hash_state(module), graph_text(proto)),
        missing_keys=all_nan_keys(module),
        leaf_modules=leaf_modules,
        source="onnx",
    )


def _read(path: Path) -> Any:
    try:
        onnx = importlib.import_module("onnx")
        for other in ("onnx2torch", "onnxruntime"):  # found missing before the file is read
            importlib.import_module(other)
        damaged = importlib.import_module("google.protobuf.message").DecodeError
    except ImportError as error:
        raise ModelError(
            f"FILE.onnx needs onnx, onnx2torch and onnxruntime ({error}): "
            'pip install "rrm-extract[onnx]"'
        ) from error
    try:
        proto = onnx.load(str(path))
    except (OSError, ValueError, damaged, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{str(path)!r} is no readable ONNX file: {reason}") from error
    # Nothing, too, is a valid protocol buffer. What else may be wrong shows in the conversion:
    # onnx's own checker also refuses files that every runtime takes.
    if not proto.graph.node:
        raise ModelError(f"{str(path)!r} is no readable ONNX file: it holds no graph")
    return proto


def _convert(name: str, proto: Any) -> fx.GraphModule:
    onnx2torch = importlib.import_module("onnx2torch")
    inference = importlib.import_module("onnx.shape_inference")
    try:
        with warnings.catch_warnings():
            # That it may differ from ONNX Runtime is found out below.
            warnings.filterwarnings("ignore", module="onnx2torch")
            module: fx.GraphModule = onnx2torch.convert(inline_constants(proto))
    except (
        NotImplementedError, KeyError, ValueError, TypeError, RuntimeError,
        inference.InferenceError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise ModelError(
            f"onnx2torch cannot convert {name!r} ({type(error).__name__}: {reason}); simplify it "
            "or export it with another opset"
        ) from error
    repair_slices(module)
    return module


def _input_dims(name: str, proto: Any) -> list[int | None]:
    """Dimensions of the only input; None where the file leaves one free."""
    inputs = inputs_of(proto)
    if len(inputs) != 1:
        listed = ", ".join(value.name for value in inputs) or "none"
        raise ModelError(f"{name!r} has {len(inputs)} inputs ({listed}); expected one image batch")
    dims = [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise ModelError(f"{name!r} takes {_dims(dims)}; expected four dimensions, NCHW or NHWC")
    return dims


def _check_dims(name: str, declared: list[int | None], shape: tuple[int, int, int]) -> int:
    """The batch size to run the file's own graph with."""
    for have, want in zip(declared[1:], shape, strict=True):
        if have is not None and have != want:
            raise PreprocessError(
                f"{name} takes {_dims(declared)}, preprocess gives {_dims([None, *shape])}: "
                "change crop or layout (nchw or nhwc)"
            )
    return declared[0] or 1


def _dims(dims: list[int | None]) -> str:
    return "x".join("N" if dim is None else str(dim) for dim in dims)


def _noise(shape: tuple[int, ...], kind: np.dtype[Any]) -> Tensor:
    """Input of this shape, float32; whole numbers, as of pixels, where ``kind`` is of such."""
    generator = torch.Generator("cpu").manual_seed(0)
    if np.issubdtype(kind, np.integer):
        end = min(255, int(np.iinfo(kind).max)) + 1
        return torch.randint(end, shape, generator=generator, dtype=torch.float32, device="cpu")
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def _simplify(
    name: str, converted: fx.GraphModule, example: Tensor
) -> tuple[nn.Module, tuple[type[nn.Module], ...], list[Tensor]]:
    """The plain module, the types in it that have no plain form, and its outputs."""
    try:
        with torch.no_grad():
            expected = _outputs(converted(example))
        module = freeze(make_plain(converted, example))
        with torch.no_grad():
            actual = _outputs(module(example))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{name!r} does not run: {type(error).__name__}: {reason}") from error
    if not is_close(actual, expected):
        raise ModelError(f"{name!r} computes something else once simplified; please report it")
    foreign = {
        type(part)
        for part in module.modules()
        if type(part).__module__.startswith("onnx2torch") or isinstance(part, RuntimeSlice)
    }
    return module, tuple(sorted(foreign, key=lambda kind: kind.__qualname__)), actual


def _check_batches(name: str, module: nn.Module, frames: Tensor) -> None:
    """Raise ModelError unless a batch gives what its frames give one by one."""
    try:
        with torch.no_grad():
            together = _outputs(module(frames))
            single = [_outputs(module(frame.unsqueeze(0))) for frame in frames]
        _check_rows(name, single)
        apart = [torch.cat(parts) for parts in zip(*single, strict=True)]
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{name!r} runs only with the batch size it was exported with ({reason}); export it "
            "with a free batch dimension"
        ) from error
    if not is_close(together, apart):
        raise ModelError(
            f"{name!r} mixes the frames of a batch; export it with a free batch dimension"
        )


def _check_rows(name: str, single: list[list[Tensor]]) -> None:
    """Raise ModelError where an output of a frame that was run alone is no batch of one."""
    if any(output.ndim == 0 for outputs in single for output in outputs):
        raise ModelError(
            f"{name!r} has an output that is a single number, expected a row for each frame; "
            "export it with a free batch dimension"
        )


def _outputs(value: Any) -> list[Tensor]:
    """In the order of the file; those of one operation may come as a tuple among others."""
    return (
        [value] if isinstance(value, Tensor) else [one for part in value for one in _outputs(part)]
    )
