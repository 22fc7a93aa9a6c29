"""Factories whose own errors look like those of a pipe that has ended."""

from __future__ import annotations

from torch import nn

EOF = "tests.jobs.failing:end_of_file"
RESET = "tests.jobs.failing:reset"


def end_of_file() -> nn.Module:
    """As torch.load raises it for an empty file."""
    raise EOFError("the file of weights is empty")


def reset() -> nn.Module:
    """As a download raises it."""
    raise ConnectionResetError("the server has gone")
