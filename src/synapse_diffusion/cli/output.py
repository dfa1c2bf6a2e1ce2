"""What comes out: lines, tables and a bar for people, or one JSON object a line for machines."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

import typer

from synapse_diffusion.errors import SynapseError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from synapse_diffusion.types import Progress

WIDTH: Final = 150  # of tables where no terminal says its own
SECONDS: Final = 1.0  # between two JSON lines of progress


class Events:
    """`--log-json`: what happens, as one JSON object a line, each with `time` (UTC) and `event`.

    begin (command), said (line), progress (what, detail, done, total), table (title, columns, rows), error (line), end
    (exit_code, seconds). Of progress at most one line a second, and the last one before any other event.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._begun = file, time.monotonic()
        self._waiting: Mapping[str, Any] | None = None
        self._latest = -SECONDS

    def tell(self, event: str, **values: Any) -> None:
        """One event, now."""
        self._flush()
        self._write({"event": event, **values})

    def end(self, exit_code: int) -> None:
        """The last event."""
        self.tell("end", exit_code=exit_code, seconds=round(time.monotonic() - self._begun, 3))

    def progress(self, what: str, done: int, total: int) -> None:
        """One event, if the last one is not too recent; else kept until another one comes."""
        name, _, detail = what.partition(", ")
        self._waiting = {"event": "progress", "what": name, "detail": detail, "done": done, "total": total or None}
        if time.monotonic() - self._latest >= SECONDS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting is not None:
            self._write(self._waiting)
            self._waiting, self._latest = None, time.monotonic()

    def _write(self, values: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._file.write(json.dumps({"time": now, **values}, ensure_ascii=False) + "\n")
        self._file.flush()


events: Events | None = None
above: Console | None = None
"""Where lines go while a bar is shown on the terminal that they are for."""


def log_json(command: str) -> None:
    """From now on standard output has nothing but events; what others print goes to standard error."""
    global events  # one standard output, one log
    out = sys.stdout if is_speaker() else io.StringIO()
    sys.stdout, events = sys.stderr, Events(out)
    events.tell("begin", command=command)


def is_speaker() -> bool:
    """Of processes that torchrun has started, one speaks."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """A line on standard output."""
    if events is not None:
        events.tell("said", line=line)
    elif above is not None:
        above.print(line, soft_wrap=True, markup=False, highlight=False)
    else:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def say_error(error: SynapseError) -> None:
    """A user's failure, on standard error."""
    if events is not None:
        events.tell("error", line=str(error))
    typer.secho(f"error: {error}", err=True, fg="red")


def show(table: Table) -> None:
    """A table on standard output."""
    if events is not None:
        columns = list(table.columns)
        rows = zip(*([str(cell) for cell in column.cells] for column in columns), strict=True)
        events.tell("table", title=str(table.title), columns=[str(c.header) for c in columns], rows=[*map(list, rows)])
        return
    from rich.console import Console

    (above or Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)).print(table)


@contextmanager
def progress_bar(after: str = "the same command goes on from here") -> Iterator[Progress]:
    """A bar on a terminal, events in a JSON log, nothing elsewhere."""
    global above  # one terminal
    try:
        if events is not None:
            yield events.progress
        else:
            from synapse_diffusion.cli.bar import bar

            with bar() as (progress, console):
                above = console if console.is_terminal and sys.stdout.isatty() else None
                yield progress
    except KeyboardInterrupt:
        typer.secho(f"interrupted; {after}", err=True)
        raise
    finally:
        above = None
