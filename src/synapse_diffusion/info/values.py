"""What `info` returns, and how its numbers are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """A titled table of texts."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: bool = True
    """Are all columns but the first one numbers?"""


@dataclass(frozen=True)
class Info:
    """What was found at a path."""

    kind: str
    path: Path
    facts: Mapping[str, str]
    tables: tuple[Table, ...] = ()
    health: tuple[str, ...] = ()
    """One line for each thing that is wrong or to be known; empty: nothing found."""


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing, damaged or holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def size_of(paths: Iterable[Path]) -> int:
    """Bytes of files, and of all files in folders."""
    total = 0
    for path in paths:
        total += size_of(path.iterdir()) if path.is_dir() else path.stat().st_size if path.exists() else 0
    return total


def in_bytes(n: float) -> str:
    """`203 MB`, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def in_time(seconds: float) -> str:
    """`2 h 05 min`, `4.2 min`."""
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 60 else f"{int(minutes // 60)} h {int(minutes % 60):02d} min"


def share(part: int, whole: int) -> str:
    """`98.2 %`."""
    return f"{100 * part / whole:.1f} %" if whole else "n/a"


def between(values: Iterable[int]) -> str:
    """`64`, or `60..64` where they differ."""
    there = sorted(set(values))
    return "n/a" if not there else f"{there[0]:,}" if len(there) == 1 else f"{there[0]:,}..{there[-1]:,}"


def some(names: Iterable[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    listed = sorted(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
