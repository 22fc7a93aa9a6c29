"""No test finds a network that another has kept, or leaves one in the folder of whoever runs it."""

from __future__ import annotations

import os

from hypothesis import settings

from rrm_extract.jobs.network_cache import VARIABLE

os.environ[VARIABLE] = "off"  # before any process is started

# How long an example takes says nothing on a busy machine.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
