"""Jobs of tests keep the tiny network for each other: its code stays as it is while they run.

Loading takes PyTorch, and most of the time of such a job. So it is not imported here.
"""

from __future__ import annotations

import re

from rrm_extract.jobs import network_cache

network_cache.KNOWN = re.compile(rf"{network_cache.KNOWN.pattern}|tests\.tiny:network")
