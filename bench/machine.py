"""What a benchmark ran on, without the machine's name: processor, cores, memory, threads, load."""

import os
import platform
from pathlib import Path
from typing import Any

from attnlearn import records

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "XLA_FLAGS")


def machine() -> dict[str, Any]:
    """Facts that decide the time of a run; those that the system does not tell are left out."""
    facts = records.machine() | {"processor": _processor()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    if hasattr(os, "getloadavg"):
        facts["load_average"] = [round(load, 1) for load in os.getloadavg()]
    return facts | {name: os.environ[name] for name in THREADS if name in os.environ}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
