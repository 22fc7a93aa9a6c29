"""One network compressed into one file."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from rrm_extract import __version__
from rrm_extract.errors import ModelError, StoreWriteError, WeightsError
from rrm_extract.graph import tensor_digest
from rrm_extract.graph.binary import BINARY_MODULES
from rrm_extract.jobs.recipe import weights_notes
from rrm_extract.models import LoadedModel, load_model
from rrm_extract.models.compression import (
    CompressedLayer,
    CompressedNetwork,
    EncodedLayer,
    LayerKind,
    LayerPlan,
    compress_layers,
    dcz_bytes,
    encode_layer,
    plan_compression,
    read_dcz,
    read_published_net,
)
from rrm_extract.models.compression.dcz import MAX_WEIGHTS, TENSOR_TYPES
from rrm_extract.models.compression.published_net import PublishedNet
from rrm_extract.store.files import check_folder, remove_stale, write_atomic, writing

__all__ = ["CompressionSummary", "LayerSummary", "compress_network"]


_COMPRESSED: Mapping[str, Callable[[Path], CompressedNetwork | PublishedNet]] = {
    ".dcz": read_dcz,
    ".net": read_published_net,
}
"""Files of compressed weights, by how their names end."""


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """What became of one layer; section 6 of docs/dcz.md says how bits are counted.

    Attributes:
        name: of the module.
        paper_name: what the paper calls it; None in a network that is none of the paper's.
        kind: "convolution" or "fully-connected".
        shape: of the weight.
        weights: number of weights.
        kept: of them, those that are not pruned.
        fillers: entries that only bridge a gap.
        bits, index_bits: fixed widths of a code and of a gap.
        codes_bits, gaps_bits: of all code words of the codes and of the gaps.
        dense_bits: of the ordinary weight.
        pruned_bits: of the kept weights alone.
        quantised_bits: of codes, gaps and codebook in fixed widths.
        coded_bits: of what the file holds of the layer.
        error: relative L2 distance of the decoded weight from the given one.
    """

    name: str
    paper_name: str | None
    kind: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    fillers: int
    bits: int
    index_bits: int
    codes_bits: int
    gaps_bits: int
    dense_bits: int
    pruned_bits: int
    quantised_bits: int
    coded_bits: int
    error: float


@dataclass(frozen=True, kw_only=True)
class CompressionSummary:
    """What became of a network.

    Attributes:
        model: as it was asked for.
        weights_id, weights_sha256: what was compressed, as the file says it.
        layers: in the network's order.
        output: the file.
        output_sha256: over its bytes.
        output_bytes: its size.
        state_bytes: size of the state dict that it stands for.
        seconds: from the loaded network to the written file.
        notes: how the weights fit the network, if not whole, and what was assumed of their input.
    """

    model: str
    weights_id: str
    weights_sha256: str
    layers: tuple[LayerSummary, ...]
    output: Path
    output_sha256: str
    output_bytes: int
    state_bytes: int
    seconds: float
    notes: tuple[str, ...]


def compress_network(
    model: str,
    output: Path,
    *,
    weights: str = "default",
    preprocess: str | None = None,
    densities: Mapping[str | None, float] | None = None,
    bits: Mapping[LayerKind, int] | None = None,
    index_bits: Mapping[LayerKind, int] | None = None,
    overwrite: bool = False,
) -> CompressionSummary:
    """Prune, share and code the weights of a network, and write them to a .dcz file.

    Args:
        model: as for an extraction.
        output: the file; written whole or not at all.
        weights: as for an extraction.
        preprocess: as for an extraction.
        densities: see :func:`plan_compression`, as for the next two; where not given the paper's,
            and of a .dcz or .net file, whose weights are pruned already, what it has.
        bits: widths of codes.
        index_bits: widths of gaps.
        overwrite: replace the file if it is there.

    Raises:
        UsageError: the request is wrong, or does not fit the network.
        StoreWriteError: the file is there already, its folder is not, it is a folder itself, or
            the system refuses.
    """
    with writing(output):
        check_folder(output)
        if output.is_dir():
            raise StoreWriteError(
                f"cannot write {output}: it is a folder; name a file in it, or choose another -o"
            )
        if output.exists() and not overwrite:
            raise StoreWriteError(f"{output} would be written over; use --overwrite or another -o")
    if model.lower().endswith(".onnx"):
        raise ModelError(
            f"{model} cannot be compressed: a .dcz file holds weights and the name of their "
            "network, and nothing builds this one without its file; give a torchvision name, "
            "timm/NAME, rtpose, yolov2, tiny_yolov2, darknet:FILE.cfg or package.module:factory"
        )
    loaded = load_model(model, weights=weights, preprocess=preprocess)
    if any(isinstance(part, BINARY_MODULES) for part in loaded.module.modules()):
        raise ModelError(
            f"{model} cannot be compressed: weights that are pruned are 0, and binary layers know "
            "no 0; give a network without such layers"
        )
    if loaded.missing_keys:
        raise WeightsError(
            f"weights {loaded.weights_text} lack {len(loaded.missing_keys)} parameters of {model} "
            f"(first: {min(loaded.missing_keys)}), so it cannot be compressed; give weights of the "
            "whole network"
        )
    begin = time.monotonic()
    plans = plan_compression(
        loaded,
        densities=densities,
        bits=bits,
        index_bits=index_bits,
        own=_compressed_already(loaded, model, weights),
    )
    tensors = _others(loaded, plans)
    encoded, summaries = _layers(loaded, plans)
    data = dcz_bytes(
        encoded,
        tensors,
        model=loaded.architecture or loaded.name,
        preprocess=loaded.preprocess,
        weights_id=loaded.weights_text,
        weights_sha256=loaded.weights_sha256,
        tool_version=__version__,
    )
    remove_stale([output])
    write_atomic(output, data)
    state = loaded.module.state_dict().values()
    return CompressionSummary(
        model=model,
        weights_id=loaded.weights_text,
        weights_sha256=loaded.weights_sha256,
        layers=tuple(summaries),
        output=output,
        output_sha256=hashlib.sha256(data).hexdigest(),
        output_bytes=len(data),
        state_bytes=sum(tensor.numel() * tensor.element_size() for tensor in state),
        seconds=time.monotonic() - begin,
        notes=weights_notes(loaded),
    )


def _compressed_already(
    loaded: LoadedModel, model: str, weights: str
) -> dict[str, CompressedLayer]:
    """Layers of the compressed file that the weights come from, by the network's weight names.

    They are known by their numbers, for the file may have other names that were fitted.
    """
    for file in (model, weights):
        for suffix, read in _COMPRESSED.items():
            if not file.lower().endswith(suffix):
                continue
            layers = read(Path(file)).layers
            known = {tensor_digest(torch.from_numpy(layer.weights())): layer for layer in layers}
            state = loaded.module.state_dict()
            digests = {name: tensor_digest(tensor) for name, tensor in state.items()}
            return {name: known[digest] for name, digest in digests.items() if digest in known}
    return {}


def _layers(
    loaded: LoadedModel, plans: tuple[LayerPlan, ...]
) -> tuple[list[EncodedLayer], list[LayerSummary]]:
    state = loaded.module.state_dict()
    encoded, summaries = [], []
    total = sum(plan.n_weights for plan in plans)
    # Drawn on a terminal only.
    with tqdm(total=total, unit="weight", unit_scale=True, file=sys.stderr, disable=None) as bar:
        for plan, layer in compress_layers(loaded, plans):
            coded = encode_layer(layer)
            encoded.append(coded)
            summaries.append(_summary(plan, coded, state[plan.name].numpy()))
            bar.update(plan.n_weights)
    return encoded, summaries


def _summary(plan: LayerPlan, coded: EncodedLayer, given: NDArray[np.float32]) -> LayerSummary:
    layer = coded.layer
    norm, distance = _norm(given), _norm(layer.weights() - given)
    return LayerSummary(
        name=plan.module,
        paper_name=plan.paper_name,
        kind=plan.kind,
        shape=plan.shape,
        weights=layer.n_weights,
        kept=layer.n_kept,
        fillers=layer.n_entries - layer.n_kept,
        bits=layer.bits,
        index_bits=layer.index_bits,
        codes_bits=coded.codes.bits,
        gaps_bits=coded.gaps.bits,
        dense_bits=coded.dense_bits,
        pruned_bits=coded.pruned_bits,
        quantised_bits=coded.quantised_bits,
        coded_bits=coded.coded_bits,
        error=distance / norm if norm else 0.0,
    )


def _norm(weights: NDArray[np.float32]) -> float:
    # numpy would sum in float32, and a float64 copy of a layer may take a gigabyte.
    return float(torch.linalg.vector_norm(torch.from_numpy(weights), dtype=torch.float64))


def _others(loaded: LoadedModel, plans: tuple[LayerPlan, ...]) -> dict[str, NDArray[Any]]:
    """The state dict without the weights that are compressed."""
    n_elements = sum(tensor.numel() for tensor in loaded.module.state_dict().values())
    if n_elements > MAX_WEIGHTS:
        raise ModelError(
            f"{loaded.name} has {n_elements} weights; a .dcz file holds up to {MAX_WEIGHTS}"
        )
    compressed = {plan.name for plan in plans}
    others = {}
    for name, tensor in loaded.module.state_dict().items():
        if name in compressed:
            continue
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in TENSOR_TYPES:
            raise ModelError(
                f"{loaded.name}: {name} is of type {kind}, which a .dcz file does not hold; "
                f"expected one of {', '.join(TENSOR_TYPES)}"
            )
        others[name] = tensor.numpy()
    return others
