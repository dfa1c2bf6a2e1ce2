"""A run for people: its scores and decisions as tables, its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from synapse_diffusion.errors import RunError
from synapse_diffusion.metrics import Score, holm
from synapse_diffusion.models.fusion import FUSED
from synapse_diffusion.runs.files import RunFiles
from synapse_diffusion.splits import TEST, VALIDATION
from synapse_diffusion.types import Folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAIN_METRIC: Final = {"classify": "balanced_accuracy", "questions": "auc", "retrieve": "top1"}
SHOWN: Final = {"balanced_accuracy": "balanced accuracy", "auc": "mean AUC", "top1": "top-1"}
CLAIMS: Final = ("none", "shuffled_labels")
"""Controls of rows that say something of the decoder that was trained; the other controls make no claim."""
NUMBERS: Final = ("fold", "k_repeats", "rank", "score", "gallery")
"""Columns of predictions that are no text, beside `p(...)`."""


class Run(RunFiles):
    """What is in a run's folder: its recipe, tables and scores, and drawings of them.

    A run stands wherever its folder does: `evaluate(run)` is `evaluate(run.folder)`.
    """

    @property
    def task(self) -> str:
        """classify, questions or retrieve."""
        return str(self.provenance["task"])

    @property
    def decoder(self) -> str:
        """The model that the run is about; the others in its tables stand beside it."""
        recipe = self.recipe
        return FUSED if recipe.data.modality == "comb" else recipe.model.name

    @property
    def scores(self) -> pd.DataFrame:
        """One row a figure, as in scores.json: value, chance, interval, p, and what it is of. Raises `RunError`."""
        return pd.DataFrame(self.read_scores())

    @property
    def predictions(self) -> pd.DataFrame:
        """One row a decision of validation and (after `evaluate`) test, by every model; `split` says of which.

        Raises `RunError` where no table is there.
        """
        paths = [self.folder / "predictions" / f"{split}.tsv" for split in (VALIDATION, TEST)]
        tables = [_decisions(path).assign(split=path.stem) for path in paths if path.exists()]
        if not tables:
            raise RunError(f"{paths[0]}: missing; train again (what is finished is kept)")
        return pd.concat(tables, ignore_index=True)

    def confusion(self, split: str = TEST, *, k_repeats: int = 1, model: str = "") -> pd.DataFrame:
        """Counts of decisions (K, K): rows what was seen, columns what was decoded by `model` (the run's decoder).

        `k_repeats`: of single trials, or of means of so many. Raises `RunError` where there are none.
        """
        if self.task != "classify":
            raise RunError(f"{self.folder}: its task is {self.task}; only classes have a confusion matrix")
        table, model = self.predictions, model or self.decoder
        mine = table[(table["split"] == split) & (table["model"] == model) & (table["k_repeats"] == k_repeats)]
        if mine.empty:
            there = table[["split", "model", "k_repeats"]].drop_duplicates().astype(str).agg(" ".join, axis=1)
            raise RunError(f"{self.folder}: no decisions of {split} {model} {k_repeats}; there are {', '.join(there)}")
        return self._counts(mine)

    def _counts(self, decisions: pd.DataFrame) -> pd.DataFrame:
        classes = list(self.provenance["classes"])
        counts = pd.crosstab(decisions["label"], decisions["predicted"])
        return counts.reindex(index=classes, columns=classes, fill_value=0).rename_axis(index="seen", columns="decoded")

    def draw_curve(self, path: Folder | None = None) -> Figure:
        """Losses and the validation score over steps; `path`: also into this file, here and below."""
        from synapse_diffusion.figures.scores import draw_curve

        return draw_curve(self.curve, path)

    def draw_confusion(self, split: str = TEST, path: Folder | None = None) -> Figure:
        """Confusion matrices of the run's decoder, for single trials and means, as counts and as shares with chance."""
        from synapse_diffusion.figures.scores import draw_confusions

        if self.task != "classify":
            raise RunError(f"{self.folder}: its task is {self.task}; only classes have a confusion matrix")
        table = self.predictions
        mine = table[(table["split"] == split) & (table["model"] == self.decoder)]
        if mine.empty:
            there = ", ".join(sorted(set(table["split"])))
            raise RunError(f"{self.folder}: no decisions of {split}, but of {there}; evaluate makes test's")
        counts = [
            (caption(k), self._counts(mine[mine["k_repeats"] == k]).to_numpy())
            for k in mine["k_repeats"].unique().tolist()
        ]
        people = ", ".join(f"sub-{person}" for person in sorted(set(mine["person"]))[:6])
        title = f"{split}: {self.decoder} decoder, {self.recipe.data.name} ({people})"
        return draw_confusions(counts, self.provenance["classes"], title, path)

    def draw_models(self, k_repeats: int = 1, path: Folder | None = None) -> Figure:
        """Every decoder's main test score with its interval, and every control's, beside chance."""
        from synapse_diffusion.figures.scores import draw_bars

        plain, controls = self.main_rows()
        bars = [bar(row["model"], row) for row in plain if row["k_repeats"] == k_repeats]
        if not bars:
            raise RunError(f"{self.folder}: no test scores of means of {k_repeats}")
        bars += [bar(f"{row['model']}, {row['control']}", row) for row in controls if row["k_repeats"] == k_repeats]
        chance = next(row["chance"] for row in plain if row["k_repeats"] == k_repeats)
        title = f"test: {SHOWN[MAIN_METRIC[self.task]]}{_among(plain)}, {self.recipe.data.name}, {caption(k_repeats)}"
        return draw_bars(bars, chance, title, path)

    def draw_retrieval(self, path: Folder | None = None) -> Figure:
        """How often the picture is found, over the number of repeats averaged, by every decoder. Raises `RunError`."""
        from synapse_diffusion.figures.scores import draw_retrieval

        if self.task != "retrieve":
            raise RunError(f"{self.folder}: its task is {self.task}; no picture was to be found")
        plain, _ = self.main_rows()
        curves: dict[str, list[tuple[int, float, float, float]]] = {}
        for row in plain:
            curves.setdefault(row["model"], []).append((row["k_repeats"], *bar("", row)[1:]))
        return draw_retrieval(curves, plain[0]["chance"], f"test: top-1{_among(plain)}, {self.recipe.data.name}", path)

    def main_rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Test rows of the task's main metric over all people: of decoders, among the fewest images; of controls."""
        rows = [
            row for row in self.read_scores()
            if row["split"] == TEST and row["person"] == "all" and row["metric"] == MAIN_METRIC[self.task]
        ]  # fmt: skip
        plain = [row for row in rows if row["control"] in CLAIMS and not row["transductive"]]
        fewest = min((row["gallery"] or 0 for row in plain), default=0)
        controls = [row for row in rows if row not in plain and (row["gallery"] or 0) in (0, fewest)]
        return [row for row in plain if (row["gallery"] or 0) == fewest], controls


def caption(k_repeats: int) -> str:
    """What one decision is made of."""
    return "single trials" if k_repeats == 1 else f"means of {k_repeats} repeats"


def bar(name: str, row: Mapping[str, Any]) -> tuple[str, float, float, float]:
    """A score row as `figures` draws it: name, value, ends of its interval (NaN where it has none)."""
    low, high = (np.nan if row[end] is None else float(row[end]) for end in ("low", "high"))
    return name, row["value"], low, high


def _among(rows: Sequence[Mapping[str, Any]]) -> str:
    return f" of {rows[0]['gallery']} images" if rows[0]["gallery"] else ""


def _decisions(path: Path) -> pd.DataFrame:
    """A table of predictions; ids stay text, numbers are numbers."""
    try:
        names = pd.read_csv(path, sep="\t", nrows=0).columns
        text = {name: str for name in names if name not in NUMBERS and not name.startswith("p(")}
        return pd.read_csv(path, sep="\t", dtype=text, keep_default_na=False, na_values=dict.fromkeys(NUMBERS, "n/a"))
    except (OSError, ValueError):
        raise RunError(f"{path}: missing or damaged; run `synapse-diffusion evaluate` on the run") from None


def score_row(score: Score, **about: Any) -> dict[str, Any]:
    """One row of scores.json; `about` fills the columns that say which figure it is."""
    columns = {
        "task": "classify", "split": "", "modality": "eeg", "person": "all", "model": "", "k_repeats": 1,
        "gallery": None, "control": "none", "transductive": False, "seed": None, "p_holm": None, "n_people": None,
        "note": None,
    }  # fmt: skip
    values = {**columns, **about, **asdict(score)}
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in values.items()}


def with_holm(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `p_holm`: p adjusted within a family of what one run claims of its test part.

    One family are the scores over all people: every model, metric, number of repeats and gallery; another those of
    single people, all of them together. Controls claim nothing; validation was chosen on; neither is adjusted.
    """
    adjusted = [dict(row) for row in rows]
    claims = [row for row in adjusted if row["split"] == TEST and row["control"] in CLAIMS and row["p"] is not None]
    for of_all in (True, False):
        family = [row for row in claims if (row["person"] == "all") == of_all]
        for row, p in zip(family, holm(np.array([row["p"] for row in family], dtype=float)), strict=True):
            row["p_holm"] = float(p)
    return adjusted
