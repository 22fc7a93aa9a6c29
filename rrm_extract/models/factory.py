"""Networks of the user's own code: ``package.module:factory``."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Mapping

from torch import nn

from rrm_extract.graph import digest_of, trace

from ..errors import ModelError, PreprocessError, TraceError, WeightsError
from ..importable import current_folder_importable
from .checkpoint import all_nan_keys, load_chosen_file
from .loaded import LoadedModel, Transform, freeze, hash_joined, hash_state
from .preprocess import EXAMPLE, parse_preprocess
from .weights import WeightsChoice, seeded

__all__ = ["load_factory"]


def load_factory(name: str, choice: WeightsChoice, preprocess: Transform | None) -> LoadedModel:
    """Call ``factory()`` of ``package.module:factory`` for the network.

    The current directory is importable, as with ``python -m``; it stays so, since processes that
    unpickle the network must find its classes. "default" weights are those the factory makes; what
    the factory itself raises is passed on.

    Raises:
        ModelError: no such module or factory, or it returns no ``nn.Module`` that can be used.
        WeightsError: the weights cannot be had, or do not fit.
        PreprocessError: neither ``preprocess`` nor a ``preprocess`` mapping on the network.
    """
    if choice.kind == "named":
        raise WeightsError(
            f"{name} has no weights {choice.text!r}; give default (as the factory makes them), "
            "random:SEED, or a file"
        )
    factory = _find_factory(name)
    with seeded(choice.seed):
        module = factory()
    if not isinstance(module, nn.Module):
        raise ModelError(f"{name} returned {type(module).__name__}; expected a torch.nn.Module")
    transform = preprocess or _own_preprocess(name, module)
    try:
        freeze(module)
        hash_state(module)
    except Exception as error:  # lazy, quantized, TorchScript, on no device: whatever PyTorch says
        raise ModelError(
            f"{name} returned a {type(module).__name__} that cannot be used ({_in_words(error)}); "
            "expected plain modules with dense tensors of numbers, that are there"
        ) from error
    unexpected = load_chosen_file(module, choice)
    return LoadedModel(
        name=name,
        module=module,
        transform=transform,
        preprocess=transform.describe(),
        input_shape=transform.output_shape,
        weights_id=f"factory:{name}" if choice.kind == "default" else choice.weights_id,
        weights_sha256=_hash(module),
        missing_keys=all_nan_keys(module),
        unexpected_keys=unexpected,
        source="factory",
    )


def _hash(module: nn.Module) -> str:
    """Over the weights and what is computed with them: the code may change under its name."""
    try:
        computed = digest_of(trace(module))
    except TraceError:  # said where it is traced to be run
        computed = ""
    return hash_joined(hash_state(module), computed)


def _find_factory(name: str) -> Callable[[], object]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or module_name.startswith("."):
        raise ModelError(f"model {name!r}: expected package.module:factory")
    here = current_folder_importable()
    try:
        factory: object = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(
            f"{name}: cannot import {module_name!r} ({error}); expected package.module:factory, "
            f"importable here or from {here}"
        ) from error
    except Exception as error:  # the user's own code
        raise ModelError(f"{name}: importing {module_name} fails: {_in_words(error)}") from error
    for part in attribute.split("."):
        if not hasattr(factory, part):
            raise ModelError(f"{name}: {module_name} has no {attribute!r}")
        factory = getattr(factory, part)
    if isinstance(factory, nn.Module):
        raise ModelError(
            f"{name} is a network already; expected a function that, called without arguments, "
            "returns one"
        )
    if not callable(factory):
        raise ModelError(
            f"{name} is {type(factory).__name__}; expected a function that, called without "
            "arguments, returns a torch.nn.Module"
        )
    return factory


def _in_words(error: Exception) -> str:
    """What was raised, and where, in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:  # says itself where
        return text
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})"


def _own_preprocess(name: str, module: nn.Module) -> Transform:
    own = getattr(module, "preprocess", None)
    if isinstance(own, Mapping):
        return parse_preprocess(own)
    raise PreprocessError(
        f"{name} does not say what its input is: give the network an attribute `preprocess` "
        f"(a mapping), or pass --preprocess imagenet, or such as --preprocess {EXAMPLE}"
    )
