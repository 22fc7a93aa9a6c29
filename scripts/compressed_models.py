"""Networks compressed as ``rrm-extract compress`` does it, in files that are used again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from benchmarking import say
from tables import network_stamps

from rrm_extract.graph import Program
from rrm_extract.jobs.compress import compress_network
from rrm_extract.models.compression import parse_density
from rrm_extract.models.compression.dcz_reader import describe_dcz

__all__ = ["COMPRESSED", "compressed_file", "origin_of", "weight_densities"]

COMPRESSED = (".dcz", ".net")
"""Files of compressed networks."""


def compressed_file(
    model: str,
    weights: str,
    folder: Path,
    *,
    density: str | None = None,
    preprocess: str | None = None,
) -> Path:
    """The network's .dcz file, made if there is none.

    Args:
        model: as ``rrm-extract compress`` takes it, like the next and the last.
        weights: what is compressed.
        folder: where the file is, or will be.
        density: as ``--density``; None for the published ones.
        preprocess: for networks that bring no transform of their own.

    Raises:
        UsageError: there is no such network, or it cannot be compressed that way.
    """
    asked = [model, weights, density, preprocess, network_stamps(model, weights, preprocess or "")]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]
    name = "".join(one if one.isalnum() else "_" for one in Path(model).name)
    path = folder / f"{name}_{digest}.dcz"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{model}: compressing to {path}")
    densities = None if density is None else parse_density(density)
    compress_network(model, path, weights=weights, densities=densities, preprocess=preprocess)
    return path


def origin_of(path: Path) -> str:
    """What was compressed, as the file says it: such as "random:0"."""
    if path.suffix.lower() == ".dcz":
        return f"{describe_dcz(path).weights_id}, compressed"
    return path.name


def weight_densities(program: Program) -> dict[str, float]:
    """Share of the weights of each linear layer that are not 0, by its name for people."""
    names = program.linear_names()
    return {
        names[op.name]: float((op.linear_map.weight != 0).double().mean())
        for op in program.linear_ops
    }
