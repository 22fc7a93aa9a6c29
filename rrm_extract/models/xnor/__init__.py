"""XNOR-Net (arXiv 1603.05279): networks whose inner layers have weights and inputs of one bit."""

from __future__ import annotations

from .alexnet import xnor_alexnet
from .load import is_xnor_model, load_xnor
from .published import xnor_entries
from .resnet import xnor_resnet18

__all__ = ["is_xnor_model", "load_xnor", "xnor_alexnet", "xnor_entries", "xnor_resnet18"]
