"""How many cores this process really has, and how many workers a pool gets of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

WORKERS_MAX: Final = 16
"""One event loop opens, seals and hands out a record in some .4 ms: it keeps no more workers than these busy, even with models.
Where there are more cores, more agents use them."""
_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")


def cores(cgroups: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP) -> int:
    """Whole cores, at least one: those it may run on, or fewer where a quota (cgroup v2, `cpu.max`) allows less time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(_quota(cgroups, own_cgroup))))


def workers_for(setting: int, cores: int) -> int:
    """Processes of a pool: the setting, or for 0 all cores but one, which is left to the event loop.

    Two on two cores: with one worker, what waits in overflow would hold up the rest (docs/fairness.md).
    """
    if setting:
        return setting
    return 1 if cores == 1 else min(WORKERS_MAX, max(2, cores - 1))


def _quota(cgroups: Path, own_cgroup: Path) -> float:
    """Cores' worth of time: the least of this cgroup's and of those above it. Where there is no cgroup v2, no bound."""
    least = float(1 << 20)
    try:
        rows = own_cgroup.read_text().splitlines()
    except OSError:
        return least
    for row in rows:
        number, _, path = row.split(":", 2)
        if number != "0":
            continue
        group = cgroups / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == cgroups.parent:
                break
            least = min(least, _limit(folder / "cpu.max", least))
    return least


def _limit(file: Path, none: float) -> float:
    try:
        quota, period = file.read_text().split()
        return none if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return none
