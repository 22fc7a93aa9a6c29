"""Jobs of tests keep small networks for each other: their code stays as it is while they run.

Loading takes PyTorch, and most of the time of such a job. So it is not imported here.
"""

from __future__ import annotations

import re

from rrm_extract.jobs import network_cache

OF_TESTS = r"tests\.(tiny|hostile\.networks):\w+"
network_cache.KNOWN = re.compile(rf"{network_cache.KNOWN.pattern}|{OF_TESTS}")
