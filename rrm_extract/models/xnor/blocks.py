"""What binary layers are surrounded by: batch normalisation and a sign in front (Fig. 3)."""

from __future__ import annotations

from torch import nn

__all__ = ["norm1d", "norm2d"]


def norm2d(channels: int, *, mean: float = 0.0, variance: float = 1.0, eps: float) -> nn.Module:
    """Batch normalisation whose statistics begin with what untrained layers give it.

    Behind a rectified layer, with a mean of 0, every sign would be 1.
    """
    return _begin(nn.BatchNorm2d(channels, eps=eps), mean, variance)


def norm1d(features: int, *, mean: float = 0.0, eps: float) -> nn.Module:
    """The same for the input of a fully-connected layer."""
    return _begin(nn.BatchNorm1d(features, eps=eps), mean, 1.0)


def _begin(norm: nn.BatchNorm1d | nn.BatchNorm2d, mean: float, variance: float) -> nn.Module:
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.fill_(mean)
        norm.running_var.fill_(variance)
    return norm
