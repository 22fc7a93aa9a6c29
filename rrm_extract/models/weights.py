"""What ``weights=`` asks for, and random initialisation that leaves the world as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ..errors import WeightsError
from ..given_file import lack_of_file

__all__ = ["WeightsChoice", "parse_weights", "seeded"]

FILE_SUFFIXES = (
    *(".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar"),
    *(".dcz", ".net", ".weights", ".caffemodel"),
)
_MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class WeightsChoice:
    """One of: the default weights, other weights by name, a file, random ones by seed."""

    kind: Literal["default", "named", "file", "random"]
    text: str
    """As given."""
    seed: int | None = None
    """For "random": what torch's generator is seeded with."""

    @property
    def weights_id(self) -> str:
        """For "file" and "random": how the weights are recorded."""
        return f"random:{self.seed}" if self.kind == "random" else f"file:{Path(self.text).name}"


def parse_weights(text: str) -> WeightsChoice:
    """Read ``weights=``: "default", "random", "random:SEED", a file, or a weights name.

    Raises:
        WeightsError: the seed is no number, or the file does not exist or may not be looked at.
    """
    if text == "default":
        return WeightsChoice(kind="default", text=text)
    if text == "random" or text.startswith("random:"):
        return WeightsChoice(kind="random", text=text, seed=_seed(text))
    lack = lack_of_file(Path(text))
    if lack is None:
        return WeightsChoice(kind="file", text=text)
    if text.lower().endswith(FILE_SUFFIXES) or os.sep in text:
        raise WeightsError(f"weights file {text!r} {lack}")
    return WeightsChoice(kind="named", text=text)


def _seed(text: str) -> int:
    digits = text.partition(":")[2] if ":" in text else "0"
    if not (digits.isascii() and digits.isdigit() and int(digits) <= _MAX_SEED):
        raise WeightsError(f"weights {text!r}: expected random:SEED with SEED in 0..2**63-1")
    return int(digits)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Run the body under torch's CPU generator seeded with ``seed``, then put it back.

    With None the generator is not seeded, only put back. Tensors that the body makes are float32
    and on the CPU where it does not say otherwise, whatever torch's defaults are: with others the
    same seed would make another network.
    """
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        if seed is not None:
            # torch.manual_seed would also seed every GPU generator, which nothing puts back.
            torch.default_generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
