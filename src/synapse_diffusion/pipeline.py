"""All stages in order; each does only what is not done yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synapse_diffusion.config import Recipe
from synapse_diffusion.types import PYTHON, Progress, Say, silent


def run_recipe(
    recipe: Recipe,
    name: str = "",
    command: str = PYTHON,
    say: Say = silent,
    progress: Progress = silent,
    *,
    simulated: bool = False,
) -> tuple[Path, list[dict[str, Any]]]:
    """Convert, embed the images (for retrieval), train and evaluate; the run's folder and scores.

    A study is simulated first, if asked. For a fusion the two data sets are converted already, with recipes of their
    own; this one is about their pairs.
    """
    from synapse_diffusion.convert import convert, convert_pairs
    from synapse_diffusion.evaluate import evaluate
    from synapse_diffusion.train import train

    if simulated:
        from synapse_diffusion.simulate import simulate

        simulate(recipe, say, progress)
    if recipe.data.modality == "comb":
        convert_pairs(recipe, say)
    else:
        convert(recipe, say, progress)
    if recipe.target.task == "retrieve" and not recipe.target.table:
        from synapse_diffusion.embed import embed

        embed(recipe, say, progress)
    run = train(recipe, name, command, say, progress)
    return run.folder, evaluate(run.folder, say, progress)


def draw_recipe(
    recipe: Recipe, name: str, command: str, say: Say, progress: Progress
) -> tuple[Path, list[dict[str, Any]]]:
    """Train and evaluate a decoder that retrieves, train the generator, reconstruct; the pictures' folder and scores.

    Of stores that are converted already.
    """
    from synapse_diffusion.embed import embed
    from synapse_diffusion.evaluate import evaluate
    from synapse_diffusion.generate import train_generator
    from synapse_diffusion.reconstruct import reconstruct
    from synapse_diffusion.train import train

    if not recipe.target.table:
        embed(recipe, say, progress)
    run = train(recipe, name, command, say, progress)
    evaluate(run.folder, say, progress)
    train_generator(recipe, command, say, progress)
    return reconstruct(run.folder, (), say, progress)


def observer_shares(rows: Sequence[dict[str, Any]]) -> list[str]:
    """For each decoder, how much of the category observer's distance from chance it covers on test."""
    value = {
        (row["model"], row["k_repeats"]): row
        for row in rows
        if row["split"] == "test" and row["person"] == "all" and row["metric"] == "balanced_accuracy"
        if row["control"] == "none"
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
