"""A search over the decoder's settings beside the settings as they stand: which of 100 new photos was seen?

    python benchmarks/tuning.py FOLDER [--data ../shared/data] [--modality eeg|meg] [--preset demo|realistic]
        [--trials 20] [--steps 400] [--address HOST:PORT]

The study is `benchmarks/semireal.py`'s. The search sees training and validation trials; its first trial is the recipe
as it stands. Then that recipe and the best one are trained for good and tested, once each. Printed: how many whole
trainings the trials came to, validation loss and share found of both, test top-1 and top-5 of single trials and means
of 12. Work that is done is not repeated. Needs the pip extra `tune`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from decoders import OURS, recipe_of, scores, tested
from semireal import DATA, SHARP, build, quiet
from synapse_diffusion.config import Recipe, TrainSettings, load_recipe, parse_recipe
from synapse_diffusion.tune import Found, tune

SPACE: Final[dict[str, Any]] = {
    "train.learning_rate": {"low": 5e-4, "high": 2e-2, "log": True},
    "train.weight_decay": {"low": 1e-3, "high": 1.0, "log": True},
    "train.repeats": {"choices": [1, 2, 4]},
    "model.dropout": {"choices": ["none", 0.3, 0.5, 0.9]},
    "target.projection": {"choices": [32, 64, 128]},
}


def searched(base: Recipe, trials: int, steps: int, address: str) -> tuple[Recipe, Found]:
    """The recipe as it stands, and the search around it."""
    values = recipe_of(base, "retrieve", OURS, TrainSettings().learning_rate, 0, steps).model_dump(mode="json")
    values["target"]["layers"] = list(SHARP)
    recipe = parse_recipe(values)
    values["tune"] = {"space": SPACE, "trials": trials}
    found = tune(parse_recipe(values), "tuning", "benchmarks/tuning.py", address, print, quiet)
    return recipe, found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--modality", default="eeg", choices=["eeg", "meg"])
    parser.add_argument("--preset", default="demo", choices=["demo", "realistic"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--address", default="")
    given = parser.parse_args()
    base = build(given.folder, given.data, given.modality, given.preset)
    recipe, found = searched(base, given.trials, given.steps, given.address)
    whole = sum(row.share for row in found.rows)
    print(f"    {len(found.rows)} trials came to {whole:.1f} whole trainings; best, trial {found.best.number}:")
    print(f"    {dict(found.best.values)}")
    for name, chosen in (("as it stands", recipe), ("best", load_recipe(found.folder / "best.toml"))):
        run = tested(chosen, "retrieve", OURS)
        curve, test = run.curve, scores([run], "retrieve").loc[OURS]
        at = int(curve["validation_loss"].to_numpy().argmin())
        loss, score = curve["validation_loss"].iloc[at], curve["validation_score"].iloc[at]
        ks = sorted({int(k) for k in test.index.get_level_values("k_repeats")})
        values = (f"k={k} top-1 {test[k, 'top1']:.3f} top-5 {test[k, 'top5']:.3f}" for k in ks)
        print(f"    {name:14s} validation: loss {loss:.4f}, found {score:.3f}; test: " + ", ".join(values))


if __name__ == "__main__":
    main()
