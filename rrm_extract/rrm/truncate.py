"""The recurrence of one linear layer's input: difference, truncation, snapshot (Sec. 3.2, 3.4)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["POLICIES", "Policy", "truncated_deltas"]

Policy = Literal["bounded", "paper"]
POLICIES: tuple[str, ...] = get_args(Policy)


def truncated_deltas(
    x: Tensor, snapshot: Tensor, *, threshold: float, policy: Policy
) -> tuple[Tensor, Tensor]:
    """Truncated differences of consecutive inputs, and the snapshot after them.

    With ``d_t = x_t - s_t`` and the mask ``m_t = |d_t| > threshold``, the delta is ``d_t * m_t``.
    The policies differ in the next snapshot:

    - "bounded": ``s_{t+1} = x_t`` where the mask is set, ``s_t`` elsewhere. What was not
      propagated stays in the next difference: no element is ever further than the threshold from
      the truth. (``x_t`` rather than ``s_t + d_t``: the same number in float32, without a second
      rounding. In half precision ``d_t`` itself is rounded, and what that loses is not made up.)
    - "paper": ``s_{t+1} = x_t`` (Algorithm 1). Truncated values are lost and accumulate (Eq. 7).

    Args:
        x: (T, N, ...) float, inputs in order of time.
        snapshot: (N, ...) float, the kept input before the first of them.
        threshold: at least 0; differences of at most this size are not propagated.
        policy: "bounded" or "paper".

    Returns:
        (T, N, ...) deltas and the (N, ...) snapshot that follows. A NaN is propagated.
    """
    if policy == "paper" or threshold == 0:
        # The snapshot is always the input before: all frames at once.
        deltas = torch.cat([(x[0] - snapshot)[None], x[1:] - x[:-1]])
        if threshold > 0:
            deltas.masked_fill_(deltas.abs() <= threshold, 0)
        return deltas, x[-1].clone()
    deltas = torch.empty_like(x)
    for time in range(len(x)):
        delta = x[time] - snapshot
        small = delta.abs() <= threshold
        snapshot = torch.where(small, snapshot, x[time])
        deltas[time] = delta.masked_fill_(small, 0)
    return deltas, snapshot
