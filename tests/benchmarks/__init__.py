"""Benchmarks that compare the speed of Graft with what a user would run instead.

They are no tests: see `make bench`.
"""

import datetime
import os
import platform
from pathlib import Path


def machine(settings: str) -> str:
    """The line above a table: date, machine, and what was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    cores = len(os.sched_getaffinity(0))
    return f"{datetime.date.today()}, {cores} cores ({cpu}), Python {platform.python_version()}, {settings}.\n"
