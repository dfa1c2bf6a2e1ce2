"""
From a study to its scores
==========================

Simulate, convert, train, evaluate, and look at what came out.
"""

# %%
# A recipe is a TOML file, or the name of one that comes with the package; anything in it can be set. Paths in a recipe
# are relative to where Python runs. Stages say nothing unless they are given a listener, such as ``say=print``.

import tempfile
from pathlib import Path

from synapse_diffusion import convert, evaluate, load_recipe, simulate, train

folder = Path(tempfile.mkdtemp())
places = [f"paths.{name}={folder / name}" for name in ("bids", "stores", "runs", "embeddings")]
recipe = load_recipe("study.toml", places)

simulate(recipe, say=lambda line: print(line.removeprefix(f"{folder}/")))
convert(recipe)
run = train(recipe)
rows = evaluate(run)
recipe.simulate.categories

# %%
# All scores are one table, one row a figure. Eight test trials of a picture, averaged before they are decoded:

scores = run.scores
main = scores[(scores["split"] == "test") & (scores["metric"] == "balanced_accuracy") & (scores["person"] == "all")]
main.loc[main["k_repeats"] == 8, ["model", "control", "value", "low", "high", "chance", "p"]].round(3)

# %%
# The same with single trials as bars, beside chance and the controls:

figure = run.draw_models(k_repeats=1)

# %%
# Counts of a confusion matrix, as a table and drawn:

run.confusion("test", k_repeats=8)

# %%

matrices = run.draw_confusion("test")

# %%
# Each decision is a row, for statistics of your own: here how often each person's single trials were decoded.

decisions = run.predictions
mine = decisions.query("split == 'test' and model == 'compact' and k_repeats == 1")
mine.assign(right=mine["label"] == mine["predicted"]).groupby("person")["right"].mean().round(3)

# %%
# How training went:

curve = run.draw_curve()
