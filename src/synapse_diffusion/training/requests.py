"""Wishes for a checkpoint: by the clock, by SIGUSR1 (a cluster's warning), and by SIGTERM, which also ends training."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from synapse_diffusion.errors import StoppedError
from synapse_diffusion.parallel import Group, most

SAVE: Final = 1
SAVE_AND_END: Final = 2


class Requests:
    """What a process was asked for; steps answer between two of them, so that a checkpoint is whole."""

    def __init__(self, minutes: float) -> None:
        """`minutes` between checkpoints by the clock; 0: at every check."""
        self._seconds, self._last, self._wish, self._stepping = 60 * minutes, time.monotonic(), 0, False

    @contextmanager
    def heard_from_signals(self) -> Iterator[Requests]:
        """Listen to signals (only a process's main thread can). Between fits there is nothing to save: SIGTERM ends
        at once with `StoppedError`."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before: dict[Any, Any] = {}
        try:
            for number in (signal.SIGTERM, signal.SIGUSR1):
                before[number] = signal.signal(number, self._on_signal)
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stepping:
            self._wish = max(self._wish, SAVE_AND_END if number == signal.SIGTERM else SAVE)
        elif number == signal.SIGTERM:
            raise StoppedError("asked to end; what is finished is kept, and the same command goes on from there")

    @contextmanager
    def answered_by_steps(self) -> Iterator[Requests]:
        """While a fit runs, its steps answer."""
        self._last, self._wish, self._stepping = time.monotonic(), 0, True
        try:
            yield self
        finally:
            self._stepping = False

    def heard(self, group: Group) -> int:
        """What any process was asked for, by a signal or by the clock."""
        by_clock = self._seconds and time.monotonic() - self._last >= self._seconds
        return most(max(self._wish, SAVE if by_clock else 0), group)

    def due(self, group: Group) -> bool:
        """Has the time between checkpoints passed?"""
        return bool(most(int(time.monotonic() - self._last >= self._seconds), group))

    def saved(self) -> None:
        """A checkpoint was written."""
        self._last, self._wish = time.monotonic(), 0
