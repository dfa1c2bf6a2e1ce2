"""The bar on a terminal: what is being done, how many, how fast, how long it will take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from synapse_diffusion.types import Progress as Report


class Rate(ProgressColumn):
    """`12.3/s`, or `4.1 s each`; empty before the second report."""

    def render(self, task: Task) -> Text:
        """The rate of the last half minute."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.3g}/s" if speed >= 1 else f"{1 / speed:.3g} s each", style="progress.data.speed")


@contextmanager
def bar() -> Iterator[tuple[Report, Console]]:
    """A bar on standard error while the block runs, if that is a terminal; and what prints above it."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), Rate(),
        TimeRemainingColumn(compact=True), TextColumn("left"),
    )  # fmt: skip
    # what libraries print goes above the bar where both are on the terminal, and to standard output where that is not
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=sys.stdout.isatty()
    ) as shown:
        task, work = shown.add_task("starting", total=None), "starting"

        def report(what: str, done: int, total: int) -> None:
            nonlocal task, work
            if (name := what.partition(", ")[0]) != work:  # another work has a rate of its own
                shown.remove_task(task)
                task, work = shown.add_task(what, total=total or None, completed=done), name
            shown.update(task, description=what, completed=done, total=total or None)

        yield report, console
