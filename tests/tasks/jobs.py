"""A detector small enough for jobs of a second, and the arguments of such jobs."""

from __future__ import annotations

from pathlib import Path

from rrm_extract.models.darknet import write_weights
from tests.models.darknet import REGION, build, cfg, conv

DETECTOR = cfg(
    conv(8, batch_normalize=1),
    "[maxpool] size=2 stride=2",
    conv(8, batch_normalize=1),
    "[maxpool] size=2 stride=2",
    conv(16, size=1, activation="linear"),
    REGION,
    side=32,
)
"""Three classes, two anchors, 8 x 8 cells."""


def write_detector(folder: Path) -> None:
    """net.cfg, and net.weights of a network that is sure of what it sees."""
    network = build(DETECTOR)
    network.layers[4].conv.weight *= 6  # type: ignore[union-attr, operator]
    (folder / "net.cfg").write_text(DETECTOR, encoding="utf-8")
    write_weights(network, folder / "net.weights")


def detection(
    inputs: str | Path, output: str | Path, *options: str | Path, task: str = "detect"
) -> list[str | Path]:
    """Arguments of a job in a folder with the files of :func:`write_detector`."""
    return [
        inputs, "-o", output, "--model", "darknet:net.cfg", "--weights", "net.weights", "--task",
        task, "--threshold", "1e-2", "--fps", "8", "--chunk", "1", *options,
    ]  # fmt: skip
