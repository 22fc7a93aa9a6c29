"""Which engine runs a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rrm_extract.device import is_cpu
from rrm_extract.engine.kernels import isa_of_this_process, native_module
from rrm_extract.engine.native import BATCH, NativeNetwork
from rrm_extract.errors import ConfigError, EngineError
from rrm_extract.graph import Program
from rrm_extract.rrm import Policy, RecurrentNetwork

if TYPE_CHECKING:
    from rrm_extract.engine.build import Packed

__all__ = ["ENGINES", "PRECISIONS", "Choice", "Network", "choose_engine", "open_network"]

ENGINES = ("auto", "native", "torch")
PRECISIONS = ("fp32", "bf16")

BF16_ISA = "avx512bf16"
"""The instruction set that multiplies bfloat16."""

Network = NativeNetwork | RecurrentNetwork


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The engine that runs, and why.

    Attributes:
        engine: "native" or "torch".
        isa: instruction set of the native kernels, "" for torch.
        reason: one line for a person; empty where nothing is to be said.
    """

    engine: str
    isa: str = ""
    reason: str = ""


def choose_engine(engine: str, *, device: str = "cpu", precision: str = "fp32") -> Choice:
    """The engine for a job.

    Args:
        engine: "auto" takes the native engine where there is one for the device, and says so
            where there is none; "native" and "torch" are that engine or an error.
        device: a torch device.
        precision: "fp32", or "bf16", which only the native engine has.

    Raises:
        ConfigError: the engine, the precision or their combination with the device is impossible.
        EngineError: the native engine is asked for and not part of this installation.
    """
    if engine not in ENGINES:
        msg = f"engine {engine!r} is unknown; expected one of {', '.join(ENGINES)}"
        raise ConfigError(msg)
    if precision not in PRECISIONS:
        msg = f"precision {precision!r} is unknown; expected one of {', '.join(PRECISIONS)}"
        raise ConfigError(msg)
    on_cpu = is_cpu(device)
    if engine == "torch" or (engine == "auto" and not on_cpu):
        if precision != "fp32":
            msg = (
                f"precision {precision} needs the native engine, which runs on the CPU; expected "
                "--engine native and --device cpu, or --precision fp32"
            )
            raise ConfigError(msg)
        return Choice(engine="torch")
    if not on_cpu:
        msg = f"the native engine runs on the CPU, not on {device}; expected --device cpu"
        raise ConfigError(msg)
    try:
        native_module()
    except EngineError as error:
        if engine == "native" or precision != "fp32":
            raise
        return Choice(engine="torch", reason=f"running on PyTorch alone: {error}")
    isa = isa_of_this_process()
    reason = ""
    if precision == "bf16" and isa != BF16_ISA:
        reason = (
            f"bf16 on {isa}, which has no instructions for it: fp32 can be as fast or faster here, "
            "and is more exact"
        )
    return Choice(engine="native", isa=isa, reason=reason)


def open_network(
    program: Program,
    *,
    input_shape: tuple[int, int, int],
    engine: str = "auto",
    threshold: float | Mapping[str, float] = 1e-4,
    policy: Policy = "bounded",
    precision: str = "fp32",
    batch: int = BATCH,
    packed: Mapping[str, Packed] | None = None,
) -> Network:
    """A recurrent network on the engine that was asked for.

    Args:
        program: the network on the CPU, batch normalisation folded.
        input_shape: (C, H, W) of a frame.
        engine: as for :func:`choose_engine`.
        threshold: as for :class:`RecurrentNetwork`.
        policy: as for :class:`RecurrentNetwork`.
        precision: as for :func:`choose_engine`.
        batch: most frames that pass a layer together.
        packed: weights in the order of the native kernels, from an earlier network.

    Raises:
        ConfigError, LayerError, EngineError: the request cannot be met.
    """
    if choose_engine(engine, precision=precision).engine == "torch":
        return RecurrentNetwork(program, threshold=threshold, policy=policy)
    return NativeNetwork(
        program,
        input_shape=input_shape,
        threshold=threshold,
        policy=policy,
        precision=precision,
        batch=batch,
        packed=packed,
    )
