"""``python -m rrm_extract`` is the command ``rrm-extract``."""

from __future__ import annotations

import sys

from rrm_extract.cli import main

if __name__ == "__main__":
    sys.exit(main())
