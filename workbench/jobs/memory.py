"""Tell running out of memory from other failures: by exception, or after a kill by the system's counters."""

from __future__ import annotations

import json
import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from workbench.jobs.locks import Holder

FILE_NAME = "memory.json"
ADVICE = "Try fewer frames, a smaller size or a smaller batch."
NEARLY_ALL = 0.8
_PHRASES = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|DefaultCPUAllocator"
    r"|CUBLAS_STATUS_ALLOC_FAILED|failed to allocate|bad_alloc",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or what caused it, means that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or type(seen).__name__ == "OutOfMemoryError":
            return True
        if isinstance(seen, RuntimeError | OSError) and _PHRASES.search(str(seen)):
            return True
        seen = seen.__cause__
    return False


def note_memory(folder: Path, *, peak: int) -> None:
    """Keep beside the job what judges a kill later: kills counted so far, peak and limit in bytes."""
    data = {"kills": system_kills(), "peak": peak, "limit": memory_limit()}
    temporary = folder / f".{FILE_NAME}.{os.getpid()}-{threading.get_ident()}.tmp"
    with suppress(OSError):
        temporary.write_text(json.dumps(data), encoding="utf-8")
        temporary.replace(folder / FILE_NAME)


def killed_for_memory(folder: Path, holder: Holder | None) -> str:
    """Return one sentence if the system's out-of-memory killer struck while the dead worker ran, else ""."""
    data: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        data = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    if holder is None or not data or not _same_boot(holder):
        return ""
    peak, limit = data["peak"] / 1e9, data["limit"] / 1e9
    if system_kills() <= int(data["kills"]) and peak < NEARLY_ALL * limit:
        return ""
    return (
        "The worker was killed by the system, probably out of memory; "
        f"its peak was {peak:.1f} GB of {limit:.1f} GB. {ADVICE}"
    )


def system_kills() -> int:
    """Return how many processes the system has killed for memory: on this machine, or in this container."""
    total = 0
    for path, key in (("/proc/vmstat", "oom_kill"), ("/sys/fs/cgroup/memory.events", "oom_kill")):
        with suppress(OSError):
            for line in Path(path).read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                total += int(value) if name == key else 0
    return total


def memory_limit() -> int:
    """Return the bytes of memory that this process can have: the machine's, or the container's limit."""
    limit = psutil.virtual_memory().total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limit = min(limit, int(Path(path).read_text(encoding="ascii")))
    return limit


def _same_boot(holder: Holder) -> bool:
    return Holder.of(os.getpid()).identity.partition(":")[0] == holder.identity.partition(":")[0]
