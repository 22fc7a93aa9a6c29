"""Weights files: read safely, fitted to a network by name and shape.

Files are written by many programs: the state dict may be nested, and its names may carry the
prefix of a wrapper, or lack one, all of them or those of one part. The mapping (strip one prefix,
add one prefix) that matches most names and shapes is taken.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import WeightsError
from . import caffemodel
from .compression.dcz import CompressedNetwork
from .compression.dcz_reader import read_dcz
from .compression.published_net import PublishedNet, read_published_net
from .weights import WeightsChoice

__all__ = ["Fit", "all_nan_keys", "fit_checkpoint", "load_chosen_file", "read_checkpoint"]

_NESTS = (
    "state_dict",
    "model_state_dict",
    "state_dict_ema",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "params_ema",
    "params",
    "weights",
    "backbone",
    "student",
    "teacher",
)
"""Where programs nest a state dict, the likeliest first."""

_WRAPPERS = frozenset(
    {
        "_orig_mod",
        "backbone",
        "base",
        "base_model",
        "encoder",
        "feature_extractor",
        "features",
        "model",
        "module",
        "net",
        "network",
        "student",
        "teacher",
        "trunk",
        "visual",
    }
)
"""Attribute names under which programs wrap a network."""

_COMPRESSED: Mapping[str, Callable[[Path], CompressedNetwork | PublishedNet]] = {
    ".dcz": read_dcz,
    ".net": read_published_net,
}
"""Readers of compressed weights, by how the file's name ends."""

_MAX_DEPTH = 4
"""Wrappers within wrappers that are looked for: "module.model.backbone.features." is four."""

_NAMED_IN_MESSAGE = 3
"""Names listed in a message before "and N more"."""

# torchvision's densenet files are older than the rule that a module's name has no dot.
_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What did not meet when a file was fitted to a network."""

    missing: frozenset[str]
    """The network's names that the file lacks. They now hold NaN."""
    unexpected: frozenset[str]
    """The file's names that the network lacks."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a .safetensors, .dcz or .caffemodel file, or of torch.save's.

    Nothing but tensors and plain containers is ever unpickled.

    Raises:
        WeightsError: unreadable, or no state dict inside.
    """
    suffix = path.suffix.lower()
    if suffix in _COMPRESSED:
        state = _COMPRESSED[suffix](path).state()
        return {name: torch.from_numpy(array) for name, array in state.items()}
    if suffix == caffemodel.SUFFIX:
        blobs = caffemodel.read_caffemodel(path)
        return {name: torch.from_numpy(array) for name, array in blobs.items()}
    try:
        if suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights file {str(path)!r} is no file of torch.save, or holds Python objects other "
            "than tensors, which are not loaded; save model.state_dict() instead"
        ) from error
    except OSError as error:
        raise WeightsError(
            f"weights file {str(path)!r} cannot be read: {_one_line(error)}"
        ) from error
    except Exception as error:  # of bytes that are no such file, torch raises whatever they come to
        what = "safetensors" if suffix == ".safetensors" else "torch.save"
        raise WeightsError(
            f"weights file {str(path)!r} is no file of {what}, or is damaged "
            f"({type(error).__name__}: {_one_line(error)}); expected a state dict, whole"
        ) from error
    tensors = _find_state_dict(content)
    if not tensors:
        raise WeightsError(
            f"weights file {str(path)!r} holds no state dict; expected names with tensors, "
            f"at the top or under one of {', '.join(_NESTS[:4])}, ..."
        )
    return tensors


def _find_state_dict(content: object) -> dict[str, Tensor]:
    """The tensors of the likeliest nest, the innermost one; {} where there are none.

    Each mapping is looked at once, for it may be in several others, and even in itself.
    """
    seen: set[int] = set()
    # What is left to do, the next last: a mapping is looked at itself after all that it holds.
    pending: list[tuple[object, bool]] = [(content, False)]
    while pending:
        nest, is_searched = pending.pop()
        if not isinstance(nest, Mapping):
            continue
        if not is_searched:
            if id(nest) not in seen:
                seen.add(id(nest))
                inner = [(nest.get(key), False) for key in reversed(_NESTS)]
                pending += [(nest, True), *inner]
            continue
        tensors = {
            name: tensor
            for name, tensor in nest.items()
            if isinstance(name, str) and isinstance(tensor, Tensor)
        }
        if tensors:
            return tensors
    return {}


def load_chosen_file(
    module: nn.Module,
    choice: WeightsChoice,
    *,
    renamed: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> frozenset[str]:
    """Copy the weights file into ``module``, in place, if a file was chosen; else do nothing.

    Args:
        module: any network.
        choice: what the user asked for.
        renamed: from the file's tensors to those with names that can be fitted.

    Returns:
        The file's names that the network lacks.

    Raises:
        WeightsError: as :func:`read_checkpoint` and :func:`fit_checkpoint` do.
    """
    if choice.kind != "file":
        return frozenset()
    tensors = renamed(read_checkpoint(Path(choice.text)))
    return fit_checkpoint(module, tensors, what=f"weights file {choice.text!r}").unexpected


def fit_checkpoint(module: nn.Module, tensors: Mapping[str, Tensor], *, what: str) -> Fit:
    """Copy ``tensors`` into ``module``, in place.

    What the file does not give is filled with NaN, so that nothing computed from it can pass for
    a result; what has several names, as the weights of a shared layer, may be given by any of them.
    Integer buffers (such as a batch norm's counter) are computed by the constructor or without
    effect; they keep their value and are not counted as missing.

    Args:
        module: any network.
        tensors: names and values; the dtype is converted.
        what: how messages name the file.

    Raises:
        WeightsError: nothing matches, a tensor of the same name has another shape, or there are
            several that could be meant.
    """
    # Copied one by one, not by load_state_dict: some networks rebuild themselves there from a
    # version number that safetensors files do not carry.
    own = module.state_dict(keep_vars=True)
    floats = {name: own[name].shape for name in own if own[name].is_floating_point()}
    given = {_DENSENET.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}
    shapes = {name: tensor.shape for name, tensor in given.items()}
    strip, add = _best_affixes(floats, shapes, own, what=what)
    mapping = _map_names(given, strip, add, own)
    names = {name: file for name, file in mapping.items() if name in own}
    if not names.keys() & floats.keys():
        raise WeightsError(
            f"{what}: none of its {len(tensors)} names fits the network; the file begins with "
            f"{_some(tensors)}, the network with {_some(floats)}"
        )
    wrong = [
        f"{name} is {tuple(given[file].shape)}, expected {tuple(own[name].shape)}"
        for name, file in names.items()
        if given[file].shape != own[name].shape
    ]
    if wrong:
        raise WeightsError(
            f"{what}: {len(wrong)} of {len(names)} tensors do not fit the network: {_some(wrong)}"
        )
    doubled = [
        f"{name} as {names[name]!r} and {file!r}"
        for file in given
        if (name := _network_name(file, strip, add, own)) in floats
        and file != names[name]
        and _differ(given[file], given[names[name]], own[name])
    ]
    if doubled:
        raise WeightsError(
            f"{what} holds {len(doubled)} of {len(names)} tensors twice, with different numbers: "
            f"{_some(doubled)}; expected one of each: save the one meant by itself"
        )
    given_places = {_place(own[name]) for name in names}
    with torch.no_grad():
        for name, target in own.items():
            unfit = _why_unfit(given[names[name]], target) if name in names else ""
            if unfit:
                raise WeightsError(f"{what}: {names[name]} is {unfit}")
            if name in names:
                target.copy_(given[names[name]])
            elif name in floats and _place(target) not in given_places:
                target.fill_(float("nan"))
    used = set(names.values())
    unexpected = (name for name in tensors if _DENSENET.sub(r"\1\2", name) not in used)
    return Fit(missing=all_nan_keys(module), unexpected=frozenset(unexpected))


def _place(tensor: Tensor) -> tuple[int, int]:
    """Where the numbers are, and how many: equal for one tensor under two names."""
    return tensor.data_ptr(), tensor.numel()


def _differ(one: Tensor, other: Tensor, target: Tensor) -> bool:
    """Whether either of two tensors could be meant for ``target``, and it matters which."""
    if one.shape != other.shape or _why_unfit(one, target) or _why_unfit(other, target):
        return False
    return not torch.equal(one.to(target.dtype), other.to(target.dtype))


def _why_unfit(tensor: Tensor, target: Tensor) -> str:
    """What is wrong with a tensor of the right shape; "" if nothing is."""
    if tensor.layout != torch.strided:
        return "a sparse tensor; expected dense ones (.to_dense())"
    if tensor.is_quantized:
        return "a quantized tensor; expected plain numbers (.dequantize())"
    if tensor.is_meta:
        return "a tensor without data (on the meta device); expected its numbers"
    if target.is_floating_point() and not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        return f"{kind}, expected floating-point weights: codes and masks are none by themselves"
    return ""


def all_nan_keys(module: nn.Module) -> frozenset[str]:
    """Names of the floating-point entries that hold nothing but NaN.

    Files that were published without a classifier (torchvision's VGG16 "features") hold NaN
    in its place.
    """
    return frozenset(
        name
        for name, tensor in module.state_dict().items()
        # The first element decides for nearly all tensors.
        if tensor.is_floating_point()
        and tensor.numel()
        and bool(tensor.reshape(-1)[0].isnan())
        and bool(tensor.isnan().all())
    )


def _best_affixes(
    wanted: Mapping[str, torch.Size],
    given: Mapping[str, torch.Size],
    own: Collection[str],
    *,
    what: str,
) -> tuple[str, str]:
    """The (strip, add) under which most of ``given`` has a name and a shape of ``wanted``.

    ``own`` are all names of the network, those of integer buffers too.

    Raises:
        WeightsError: there are several networks in ``given``.
    """
    best, best_score = ("", ""), (-1, -1, 0)
    equal: dict[frozenset[str], str] = {}  # what is taken of the file, and by which prefix
    for strip in _prefixes(given):
        for add in _prefixes(wanted):
            mapping = _map_names(given, strip, add, own)
            shared = wanted.keys() & mapping.keys()
            fitting = sum(wanted[name] == given[mapping[name]] for name in shared)
            # Of equally good ones, the one that changes least.
            score = (fitting, len(shared), -len(strip) - len(add))
            if score[:2] > best_score[:2]:
                equal = {}
            if score[:2] >= best_score[:2]:
                equal.setdefault(frozenset(mapping[name] for name in shared), strip)
            if score > best_score:
                best, best_score = (strip, add), score
    # Backbones without a classifier are sets, too; what fits by chance is less.
    if len(equal) > 1 and 2 * best_score[0] > len(wanted):
        raise WeightsError(
            f"{what} holds {len(equal)} sets of weights that fit, with names that begin with "
            f"{_some(map(repr, equal.values()))}; expected one: save the one meant by itself"
        )
    return best


def _map_names(given: Iterable[str], strip: str, add: str, own: Collection[str]) -> dict[str, str]:
    """Network name -> file name; of two for one, that with the prefix to strip."""
    stripped_last = sorted(given, key=lambda name: name.startswith(strip))
    return {_network_name(name, strip, add, own): name for name in stripped_last}


def _network_name(name: str, strip: str, add: str, own: Collection[str]) -> str:
    """The name of a file by stripping and adding a prefix.

    One without the prefix to strip is kept as it is where the network has that name: a head beside
    a backbone, or what is beside the one part that was wrapped.
    """
    if name.startswith(strip):
        return add + name[len(strip) :]
    return name if name in own else add + name


def _prefixes(names: Iterable[str]) -> list[str]:
    """No prefix, and those that may belong to a wrapper: known ones, and those of most names."""
    names = list(names)
    found = [""]
    frontier = [""]
    for _ in range(_MAX_DEPTH):
        longer: list[str] = []
        for prefix in frontier:
            heads = Counter(
                name[len(prefix) :].partition(".")[0]
                for name in names
                if name.startswith(prefix) and "." in name[len(prefix) :]
            )
            longer += [
                f"{prefix}{head}."
                for head, count in heads.items()
                if head in _WRAPPERS or 2 * count >= len(names)
            ]
        found += longer
        frontier = longer
    return found


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    more = len(listed) - _NAMED_IN_MESSAGE
    text = "; ".join(listed[:_NAMED_IN_MESSAGE])
    return f"{text}; and {more} more" if more > 0 else text


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
