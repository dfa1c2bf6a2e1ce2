"""What a search found: its table, its picture, and the recipe of the best trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from synapse_diffusion.config import Recipe, dump_recipe
from synapse_diffusion.errors import RunError
from synapse_diffusion.figures.search import Axis, draw_search
from synapse_diffusion.store.files import whole, write_table
from synapse_diffusion.tune.space import with_values

Status = Literal["finished", "ended", "failed", "unfinished"]


@dataclass(frozen=True)
class Row:
    """One trial."""

    number: int
    status: Status
    """`ended`: by the scheduler, before its last step."""
    loss: float | None
    """Mean over fits of the best validation loss."""
    score: float | None
    """The task's validation score there, of a finished trial."""
    share: float
    """Of its steps that it was given."""
    seconds: float
    node: str
    """Where it ran last: the beginning of Ray's name of the node."""
    note: str
    """Why it failed."""
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """A search's folder and trials, and the best of those that finished."""

    folder: Path
    rows: Sequence[Row]

    @property
    def best(self) -> Row:
        """The trial of the smallest loss. Raises `RunError` where none finished."""
        finished = [row for row in self.rows if row.status == "finished" and row.loss is not None]
        if not finished:
            notes = sorted({row.note for row in self.rows if row.note})
            raise RunError(f"{self.folder}: no trial could be trained: {notes[0] if notes else 'no reason is known'}")
        return min(finished, key=lambda row: cast("float", row.loss))

    def write(self, recipe: Recipe) -> None:
        """`trials.tsv`, `search.png`, `best.toml`; of no trial that finished the first alone. Raises as `best`."""
        write_table(self._table(), self.folder / "trials.tsv")
        best = self.best
        draw_search(_axes(self.rows, recipe), [_line(row) for row in self.rows], self.folder / "search.png")
        with whole(self.folder / "best.toml") as part:
            part.write_text(dump_recipe(with_values(recipe, best.values)), encoding="utf-8")

    def said(self) -> list[str]:
        """The best trial, what became of the others, and the files."""
        best, counts = self.best, Counter(row.status for row in self.rows)
        values = ", ".join(f"{key} = {shown(value)}" for key, value in best.values.items())
        return [
            ", ".join(f"{n} {status}" for status, n in counts.items()),
            f"best: trial {best.number}, validation loss {best.loss:.4f}, score {best.score:.3f}; {values}",
            *(str(self.folder / name) for name in ("trials.tsv", "search.png", "best.toml")),
        ]

    def _table(self) -> pd.DataFrame:
        rows = [{**{k: v for k, v in vars(row).items() if k != "values"}, **_plain(row.values)} for row in self.rows]
        return pd.DataFrame(rows)


def shown(value: object) -> str:
    """A value in a few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _axes(rows: Sequence[Row], recipe: Recipe) -> list[Axis]:
    """One axis a setting: where each trial's value lies on it, from 0 to 1, and what is written beside it."""
    axes = []
    for key, values in recipe.tune.space.items():
        mine = [row.values[key] for row in rows]
        if values.choices:
            places = np.array([values.choices.index(value) for value in mine]) / (len(values.choices) - 1)
            marks = {k / (len(values.choices) - 1): shown(choice) for k, choice in enumerate(values.choices)}
        else:
            low, high, value_N = (np.asarray(x, dtype=np.float64) for x in (values.low, values.high, mine))
            if values.log:
                low, high, value_N = np.log(low), np.log(high), np.log(value_N)
            places, marks = (value_N - low) / (high - low), {0.0: shown(values.low), 1.0: shown(values.high)}
        axes.append(Axis(key, places, marks))
    return axes


def _line(row: Row) -> tuple[float, bool]:
    """Loss (NaN where there is none), and whether the trial finished."""
    return (np.nan if row.loss is None else row.loss), row.status == "finished"
