"""How many processors there are: without PyTorch, which conversion does not load."""

from __future__ import annotations

import os


def n_processors() -> int:
    """Those that this process may use: of a job, its own, not all of the node's."""
    allowed = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(allowed(0)) if allowed else os.cpu_count() or 1
