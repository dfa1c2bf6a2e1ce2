"""All stages in order; each does only what is not done yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import SettingsError
from synapse_diffusion.types import Progress, Say


def run_recipe(
    recipe: Recipe, name: str, command: str, say: Say, progress: Progress, *, simulated: bool = False
) -> tuple[Path, list[dict[str, Any]]]:
    """Convert, train and evaluate (a study that is simulated first, if asked); the run's folder and scores.

    Raises `SettingsError` for a combined set, which no decoder takes yet.
    """
    if recipe.data.modality == "comb":
        raise SettingsError(f"{name}: data.modality = 'comb' is an index, made by `convert comb`; train eeg or meg")
    if simulated:
        from synapse_diffusion.simulate import simulate

        simulate(recipe, say, progress)
    from synapse_diffusion.convert import convert

    convert(recipe, say, progress)
    from synapse_diffusion.evaluate import evaluate
    from synapse_diffusion.train import train

    run = train(recipe, name, command, say, progress)
    return run.folder, evaluate(run.folder, say, progress)


def observer_shares(rows: Sequence[dict[str, Any]]) -> list[str]:
    """For each decoder, how much of the category observer's distance from chance it covers on test."""
    value = {
        (row["model"], row["k_repeats"]): row
        for row in rows
        if row["split"] == "test" and row["person"] == "all" and row["metric"] == "balanced_accuracy"
    }
    lines = []
    for (model, k), row in value.items():
        observer = value.get(("observer", k))
        if observer is None or model == "observer" or observer["value"] <= row["chance"]:
            continue
        share = (row["value"] - row["chance"]) / (observer["value"] - row["chance"])
        of = "single trials" if k == 1 else f"means of {k} repeats"
        lines.append(f"test, {of}: {model} covers {share:.0%} of the category observer's distance from chance")
    return lines
