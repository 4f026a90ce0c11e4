"""Cores: how many of them this process may use."""

import os


def usable_cores() -> int:
    """Return the number of cores that this process may use, which `taskset` and cpusets limit."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
