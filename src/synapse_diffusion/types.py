"""Values that cross rooms, and the legend of shape letters.

N trials, B batch, C sensors, T time samples, D embedding, K classes or images, P people, H W pixels.
A suffix names the axes in order: `signal_TC`, `x_BCT`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

TRIAL_COLUMNS: Final = (
    "trial_id", "image_id", "concept", "person", "session", "run", "sequence", "repeat", "onset_sample",
    "duration_s", "is_test", "is_target", "is_catch", "label",
)  # fmt: skip
NOT_AVAILABLE: Final = "n/a"  # BIDS's word for a missing value

SegmentKind = Literal["bad", "dropout", "boundary"]
Progress = Callable[[str, int, int], None]
"""`progress(what, done, total)`, called as work goes on; after a comma in `what` stands what changes meanwhile."""
Say = Callable[[str], None]
"""`say(line)`: one line for the user."""
Folder = str | os.PathLike[str]
"""A folder's path, or a `Run`."""
PYTHON: Final = "python"
"""The `command` of what no command has made, but a script or notebook."""


def silent(*_: object) -> None:
    """Says nothing: what `say` and `progress` are unless a caller listens, e.g. by `say=print`."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording that no epoch may touch; for a boundary, start = stop = first sample after."""

    start: int
    stop: int
    kind: SegmentKind

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"segment must satisfy 0 <= start <= stop, got {self.start} and {self.stop}")


@dataclass(frozen=True)
class SensorArray:
    """Sensors in the order of the signal's columns; positions in m, head coordinates, NaN where unknown.

    Kinds are MNE's channel types (eeg, mag, grad: CTF's axial gradiometers are `mag` there); units V, T, T/m.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    units: tuple[str, ...]
    position_C3: NDArray[np.float64]
    status: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.names)
        if not (len(self.kinds) == len(self.units) == len(self.status) == len(self.position_C3) == n):
            raise ValueError(f"sensor fields differ in length for {n} names")
        if len(set(self.names)) != n:
            raise ValueError("sensor names repeat")
