"""The classifier of the paper's accuracy figures: two layers on a video's mean feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Training", "TwoLayerClassifier"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the classifier is trained; the numbers are ours, not the paper's.

    Attributes:
        hidden: units of the first layer.
        epochs: how often each video is seen.
        batch: videos in a step.
        rate, decay: step size and weight decay of AdamW.
        seed: of the first weights and of the order of the videos.
    """

    hidden: int = 512
    epochs: int = 60
    batch: int = 64
    rate: float = 1e-3
    decay: float = 1e-2
    seed: int = 0


class TwoLayerClassifier:
    """Two fully-connected layers with a ReLU between them.

    Features are brought to mean 0 and standard deviation 1 by those it has learnt from. The same
    arguments give the same classifier on the same machine with the same number of threads.

    Args:
        features: (N, D) float32, to learn from.
        targets: (N, C) bool, the classes of each.
        multi_label: each class is asked about by itself; otherwise one True is in each row, and a
            class that nothing is of is never the answer.
        training: how.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        targets: NDArray[np.bool_],
        *,
        multi_label: bool,
        training: Training,
    ) -> None:
        x, y = torch.from_numpy(features), torch.from_numpy(targets)
        self._mean = x.mean(dim=0)
        spread = x.std(dim=0, correction=0)
        # A value that never changed says nothing, and must not be blown up where it does.
        self._spread = torch.where(spread > 1e-6 * spread.max(), spread, torch.inf)
        self._never = torch.zeros(y.shape[1], dtype=torch.bool) if multi_label else ~y.any(dim=0)
        generator = torch.Generator().manual_seed(training.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            self._network = nn.Sequential(
                nn.Linear(x.shape[1], training.hidden),
                nn.ReLU(),
                nn.Linear(training.hidden, y.shape[1]),
            )
        x = self._standardised(x)
        steps = torch.optim.AdamW(
            self._network.parameters(), lr=training.rate, weight_decay=training.decay
        )
        for _ in range(training.epochs):
            order = torch.randperm(len(x), generator=generator)
            for chosen in torch.split(order, training.batch):
                loss = _loss(self._network(x[chosen]), y[chosen], multi_label=multi_label)
                steps.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                steps.step()

    @torch.inference_mode()
    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, C) of features (N, D)."""
        logits = self._network(self._standardised(torch.from_numpy(features)))
        scores: NDArray[np.float32] = logits.masked_fill(self._never, -torch.inf).numpy()
        return scores

    def _standardised(self, x: Tensor) -> Tensor:
        return (x - self._mean) / self._spread


def _loss(logits: Tensor, targets: Tensor, *, multi_label: bool) -> Tensor:
    if multi_label:
        return nn.functional.binary_cross_entropy_with_logits(logits, targets.float())
    return nn.functional.cross_entropy(logits, targets.int().argmax(dim=1))
