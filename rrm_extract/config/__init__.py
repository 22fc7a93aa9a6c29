"""The options of an extraction job: the one table they all come from.

The fields of `JobConfig` are the table. Each carries an `Option` that says how a value is read and
checked, how it is shown in help, and whether it decides what is computed. The command line, the
keys of a job file and the identity stored with the features are all made from it:

    command line    for option in OPTIONS: click.option(*option.flags, ...)
    job file        load_job("job.yaml", ["threshold=1e-3"])
    identity        config.identity()

Importing this module does not import torch, so that `--help` is quick.
"""

from __future__ import annotations

from rrm_extract.config.job import FEATURES, OPTIONS, JobConfig, parse_threshold
from rrm_extract.config.jobfile import load_job
from rrm_extract.config.kinds import DEFAULT_PERCENTILE, DEFAULT_THRESHOLD, threshold_text
from rrm_extract.config.option import Option

__all__ = [
    "DEFAULT_PERCENTILE",
    "DEFAULT_THRESHOLD",
    "FEATURES",
    "OPTIONS",
    "JobConfig",
    "Option",
    "load_job",
    "parse_threshold",
    "threshold_text",
]
