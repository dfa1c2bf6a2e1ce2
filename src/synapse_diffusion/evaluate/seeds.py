"""One recipe trained with several seeds: how far its scores depend on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from synapse_diffusion.config import Recipe
from synapse_diffusion.config.tree import differences
from synapse_diffusion.errors import RunError
from synapse_diffusion.evaluate.stage import evaluate, unscored
from synapse_diffusion.runs import Run, open_run
from synapse_diffusion.store.files import write_json, write_table
from synapse_diffusion.types import Folder, Progress, Say, silent

KEY: Final = (
    "task",
    "split",
    "modality",
    "person",
    "model",
    "metric",
    "k_repeats",
    "gallery",
    "control",
    "transductive",
)
SEEDS_VERSION: Final = 1


def evaluate_seeds(
    folders: Sequence[Folder], out: Folder | None = None, say: Say = silent, progress: Progress = silent
) -> tuple[Path, list[dict[str, Any]]]:
    """Evaluate runs that differ in `train.seed` alone (those that are not scored yet); mean, sd and range over seeds.

    Written as seeds.json and seeds.tsv into `out`, by default `<recipe>-seeds` beside the first run. Returns the folder
    and the rows. Raises `RunError` where runs differ in anything else, or a seed comes twice.
    """
    runs = [open_run(Path(folder)) for folder in folders]
    seeds = _seeds(runs)
    rows = []
    for run in runs:
        if not unscored(run):
            say(f"{run.folder}: is scored already")
            rows += [row for row in run.read_scores() if row["task"] == run.recipe.target.task]
        else:
            rows += evaluate(run.folder, say, progress)
    table = over_seeds(rows)
    first = runs[0].folder.absolute()
    target = Path(out) if out else first.parent / f"{first.name.rpartition('-')[0] or first.name}-seeds"
    target.mkdir(parents=True, exist_ok=True)
    names = [run.folder.absolute().name for run in runs]
    about = {"version": SEEDS_VERSION, "runs": dict(zip(names, seeds, strict=True))}
    write_table(pd.DataFrame(table), target / "seeds.tsv")
    write_json({**about, "rows": table}, target / "seeds.json")
    return target, table


def over_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of scores.json of several seeds -> one row a figure, in the first run's order.

    `sd` is the sample standard deviation (n - 1), null for one seed; a figure that some run lacks has fewer `n_seeds`.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in KEY), []).append(row)
    found = []
    for key, of in groups.items():
        values = np.array([row["value"] for row in of if row["value"] is not None])
        if not len(values):
            continue
        found.append(
            {
                **dict(zip(KEY, key, strict=True)), "chance": of[0]["chance"], "n_seeds": len(values),
                "mean": float(values.mean()), "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                "smallest": float(values.min()), "largest": float(values.max()),
            }
        )  # fmt: skip
    return found


def _seeds(runs: Sequence[Run]) -> list[int]:
    """Each run's seed. Raises `RunError` unless nothing but the seed differs."""
    first = runs[0]
    own = _own_settings(first.recipe)
    seeds: dict[int, Run] = {}
    for run in runs:
        recipe = run.recipe
        other = [key for key, *_ in differences(own, _own_settings(recipe)) if key != "train.seed"]
        if other:
            raise RunError(
                f"{run.folder}: differs from {first.folder} in {', '.join(other)}, not in train.seed alone; evaluate "
                "them one by one"
            )
        if any(run.provenance.get(key) != first.provenance.get(key) for key in ("stores", "targets")):
            raise RunError(
                f"{run.folder}: was trained on another content of the stores or targets than {first.folder}; "
                "evaluate them one by one"
            )
        if (same := seeds.setdefault(recipe.train.seed, run)) is not run:
            raise RunError(
                f"{run.folder}: has train.seed = {recipe.train.seed} like {same.folder}; give each seed once"
            )
    return list(seeds)


def _own_settings(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude={"paths", "execution"})
