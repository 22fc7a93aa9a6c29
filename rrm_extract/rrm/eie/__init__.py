"""EIE, the accelerator with which the RRM paper converts sparsity into speed.

A model of the machine of Han et al. (ISCA 2016, arXiv 1602.01528): what would a frame take on it?
``analytic`` is the RRM paper's own reckoning (Sec. 4, Eq. 10): MACs at the machine's peak. The
other modules count cycles: a matrix's entries and its padding, the search for non-zeros, queues,
and PEs that wait for others. Every time from here is a modelled one; nothing was measured.
"""

from __future__ import annotations

from rrm_extract.rrm.eie.analytic import (
    analytic_seconds,
    dense_equivalent_ops,
    elementwise_seconds,
)
from rrm_extract.rrm.eie.detection import Detection, detect
from rrm_extract.rrm.eie.entries import Entries, expected_entries, random_entries, stored_entries
from rrm_extract.rrm.eie.layer import Estimate, simulate_layer
from rrm_extract.rrm.eie.machine import EIE, EieMachine
from rrm_extract.rrm.eie.pipeline import Cycles, count_cycles
from rrm_extract.rrm.eie.product import simulate_product, simulate_random_product
from rrm_extract.rrm.eie.published import (
    PUBLISHED,
    PublishedLayer,
    Reproduced,
    fitting_weight_density,
    reproduce,
    rounding_range,
)
from rrm_extract.rrm.eie.reference import ReferenceRun, encode_column, run_reference

__all__ = [
    "EIE",
    "PUBLISHED",
    "Cycles",
    "Detection",
    "EieMachine",
    "Entries",
    "Estimate",
    "PublishedLayer",
    "ReferenceRun",
    "Reproduced",
    "analytic_seconds",
    "count_cycles",
    "dense_equivalent_ops",
    "detect",
    "elementwise_seconds",
    "encode_column",
    "expected_entries",
    "fitting_weight_density",
    "random_entries",
    "reproduce",
    "rounding_range",
    "run_reference",
    "simulate_layer",
    "simulate_product",
    "simulate_random_product",
    "stored_entries",
]
