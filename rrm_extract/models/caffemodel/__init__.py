"""Weights in Caffe's .caffemodel files: a NetParameter message of protocol buffers."""

from __future__ import annotations

from .read import read_caffemodel

__all__ = ["SUFFIX", "read_caffemodel"]

SUFFIX = ".caffemodel"
