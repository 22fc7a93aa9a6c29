"""What the names of devices say, without PyTorch."""

from __future__ import annotations

__all__ = ["is_cpu"]


def is_cpu(name: str) -> bool:
    """Whether a torch device is the CPU: "cpu", also with a number behind it."""
    return name.partition(":")[0] == "cpu"
