"""What the simulated study's two presets hold: scores of decoders and observers over several studies.

    python benchmarks/simulation.py [--recipe demo|demo_meg] [--seeds 3] [--folder DIR]

Runs the recipe with each preset and several seeds of the study; prints mean and range of the balanced
accuracy (chance 1/12) and of the identification observer (among the test images).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from synapse_diffusion.bids.truth import read_truth
from synapse_diffusion.config import Recipe, load_recipe
from synapse_diffusion.evaluate import observer_epochs, person_observer
from synapse_diffusion.pipeline import run_recipe, stages_of
from synapse_diffusion.runs import Run
from synapse_diffusion.training.data import open_epochs, open_stores


def quiet(*_: object) -> None:
    """For `say` and `progress`."""


def identification(recipe: Recipe) -> tuple[float, float]:
    """Share of single test trials whose image the observer names, and chance; mean over people."""
    epochs = open_epochs(open_stores(recipe, quiet), recipe, "cpu")
    trials, right, chance = epochs.trials, [], []
    for person in sorted(set(trials["person"])):
        truth = read_truth(Path(recipe.paths.bids), person)
        if truth is None:
            raise SystemExit("not a simulated study")
        rows = np.flatnonzero((trials["person"] == person) & (trials["is_test"] == 1) & trials["usable"])
        images = sorted(set(trials["image_id"].iloc[rows]))
        observer, width = person_observer(truth, epochs, recipe)
        candidates = np.array([truth.images.index(image) for image in images])
        log_p = observer.identify(observer_epochs(epochs, [np.array([row]) for row in rows], width), candidates)
        right.append(np.mean(log_p.argmax(1) == trials["image_id"].iloc[rows].map(images.index).to_numpy()))
        chance.append(1 / len(images))
    return float(np.mean(right)), float(np.mean(chance))


def study(name: str, preset: str, seed: int, folder: Path) -> dict[str, float]:
    """Scores of one study."""
    recipe = load_recipe(
        name,
        [f"simulate.preset={preset}", f"simulate.seed={seed}", "evaluate.permutations=0", "evaluate.bootstrap=0"]
        + [f"paths.{name}={folder / name}" for name in ("bids", "stores", "runs")],
    )  # fmt: skip
    folder = run_recipe(recipe, "x", "benchmark", quiet, quiet, quiet, stages_of(recipe, "simulate", "evaluate"))
    rows = Run(folder).read_scores()
    found = {
        f"{row['model']}, {'single trials' if row['k_repeats'] == 1 else 'means of 12'}": float(row["value"])
        for row in rows
        if (row["split"], row["person"], row["metric"]) == ("test", "all", "balanced_accuracy")
    }
    found["identification observer, single trials"] = identification(recipe)[0]
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo", choices=["demo", "demo_meg"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    for preset in ("demo", "realistic"):
        studies = []
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                studies.append(study(given.recipe, preset, seed, Path(folder)))
        print(f"{preset}: mean (lowest .. highest) of {given.seeds} studies")
        for name in studies[0]:
            values = [found[name] for found in studies]
            print(f"    {name:42s} {np.mean(values):.3f} ({min(values):.3f} .. {max(values):.3f})")


if __name__ == "__main__":
    main()
