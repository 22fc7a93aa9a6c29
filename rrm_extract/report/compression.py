"""What compressing a network saved: the columns of the paper's Tables 4 and 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rrm_extract.jobs.compress import CompressionSummary, LayerSummary
from rrm_extract.jsonable import without_nan
from rrm_extract.report.table import number, table

__all__ = ["compression_json", "compression_text"]

_HEAD = (
    "layer", "in the paper", "weights", "density", "code bits", "coded", "index bits", "coded",
    "P", "P+Q", "P+Q+H", "error",
)  # fmt: skip


def compression_json(summary: CompressionSummary) -> dict[str, Any]:
    """All of it, with ratios and means, as JSON-able values: None for a ratio to no bits."""
    layers = [{**asdict(layer), **_figures([layer])} for layer in summary.layers]
    values = {
        "model": summary.model,
        "weights_id": summary.weights_id,
        "weights_sha256": summary.weights_sha256,
        "layers": layers,
        "totals": _totals(summary.layers),
        "file": {
            "path": str(summary.output),
            "sha256": summary.output_sha256,
            "bytes": summary.output_bytes,
            "state_bytes": summary.state_bytes,
            "ratio": summary.state_bytes / summary.output_bytes,
        },
        "seconds": summary.seconds,
        "notes": list(summary.notes),
    }
    cleaned: dict[str, Any] = without_nan(values)
    return cleaned


def compression_text(summary: CompressionSummary) -> str:
    """For a person."""
    totals = _totals(summary.layers)
    rows = [
        [layer.name, layer.paper_name or "", *_cells({**asdict(layer), **_figures([layer])})]
        for layer in summary.layers
    ]
    rows.append(["total", "", *_cells(totals)])
    if not any(layer.paper_name for layer in summary.layers):
        head, rows = [_HEAD[0], *_HEAD[2:]], [[row[0], *row[2:]] for row in rows]
    else:
        head = list(_HEAD)
    ratio = summary.state_bytes / summary.output_bytes
    return "\n".join(
        [
            f"{summary.model}, weights {summary.weights_id}, compressed into {summary.output}",
            "",
            table(head, rows, left=len(head) - 10),
            "",
            "P: pruned, Q: weights shared and gaps of a few bits, H: Huffman coded; ratios to 32 "
            "bits a weight",
            f"{totals['fillers']:,} fillers among {totals['kept'] + totals['fillers']:,} entries",
            f"file: {summary.output_bytes:,} bytes for {summary.state_bytes:,} of the state dict, "
            f"{ratio:.1f} times smaller, everything counted; {summary.seconds:.1f} s",
            *summary.notes,
        ]
    )


def _cells(values: dict[str, Any]) -> list[str]:
    return [
        f"{values['weights']:,}",
        number(values["density"]),
        _width(values["bits"]),
        number(values["code_bits_coded"], 2),
        _width(values["index_bits"]),
        number(values["index_bits_coded"], 2),
        number(values["ratio_pruned"], 2),
        number(values["ratio_quantised"], 2),
        number(values["ratio_coded"], 2),
        number(values["error"]) if "error" in values else "",
    ]


def _width(bits: float) -> str:
    """Whole in a layer, a mean over layers in the total."""
    return str(bits) if isinstance(bits, int) else number(bits, 1)


def _totals(layers: Sequence[LayerSummary]) -> dict[str, Any]:
    entries = sum(layer.kept + layer.fillers for layer in layers)
    sums = {
        key: sum(getattr(layer, key) for layer in layers)
        for key in (
            "weights", "kept", "fillers", "codes_bits", "gaps_bits", "dense_bits", "pruned_bits",
            "quantised_bits", "coded_bits",
        )
    }  # fmt: skip
    means = {
        key: sum(getattr(layer, key) * (layer.kept + layer.fillers) for layer in layers)
        / max(entries, 1)
        for key in ("bits", "index_bits")
    }
    return {**sums, **means, **_figures(layers)}


def _figures(layers: Sequence[LayerSummary]) -> dict[str, float]:
    """What follows from the counts of one layer or of several."""
    weights = sum(layer.weights for layer in layers)
    kept = sum(layer.kept for layer in layers)
    entries = kept + sum(layer.fillers for layer in layers)
    dense = sum(layer.dense_bits for layer in layers)

    def ratio(bits: int) -> float:
        return dense / bits if bits else float("inf")

    return {
        "density": kept / weights,
        "code_bits_coded": sum(layer.codes_bits for layer in layers) / max(entries, 1),
        "index_bits_coded": sum(layer.gaps_bits for layer in layers) / max(entries, 1),
        "ratio_pruned": ratio(sum(layer.pruned_bits for layer in layers)),
        "ratio_quantised": ratio(sum(layer.quantised_bits for layer in layers)),
        "ratio_coded": ratio(sum(layer.coded_bits for layer in layers)),
    }
