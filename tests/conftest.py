"""No test finds a network that another has kept, or leaves one in the folder of whoever runs it."""

from __future__ import annotations

import os

from rrm_extract.jobs.network_cache import VARIABLE

os.environ[VARIABLE] = "off"  # before any process is started
