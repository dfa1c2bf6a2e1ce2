"""EEG and MEG of the same real photos, decoded together: which of 100 new pictures was seen?

    python benchmarks/fusion.py FOLDER [--data ../shared/data] [--preset demo|realistic] [--steps 600]
        [--means-of 4]

The studies are `benchmarks/semireal.py`'s, two people each, paired by the image that was seen. Printed for single
trials and means of 12: top-1 and top-5 of the fusion and of what it stands beside (each modality's own decoder, their
calibrated sum, two people of one modality, the fusion with one modality missing), and how much more often the fusion
is right, with a 95 % interval over images. Training trials are as in `benchmarks/decoders.py`, its rate and width of
compact too; nothing is chosen here. Work that is done is not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from decoders import MEANS_OF, OURS, recipe_of, scores, tested
from semireal import DATA, build, quiet
from synapse_diffusion.config import Recipe, parse_recipe
from synapse_diffusion.convert import convert_pairs

RATE: Final = 0.006
FUSED: Final = "fused"


def fusion_recipe(eeg: Recipe, meg: Recipe, steps: int, means_of: int) -> Recipe:
    """Both studies' trials, paired."""
    values = recipe_of(eeg, "retrieve", OURS, RATE, 0, steps, means_of).model_dump(mode="json")
    values["data"] |= {"modality": "comb", "name": f"{eeg.data.name}-{meg.data.name}"}
    values["pairs"] = {"eeg": eeg.data.name, "meg": meg.data.name}
    values["train"]["baselines"] = False
    return parse_recipe(values)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--preset", default="demo", choices=["demo", "realistic"])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--means-of", type=int, default=MEANS_OF["retrieve"])
    given = parser.parse_args()
    eeg, meg = (build(given.folder, given.data, modality, given.preset) for modality in ("eeg", "meg"))
    recipe = fusion_recipe(eeg, meg, given.steps, given.means_of)
    convert_pairs(recipe, quiet)
    run = tested(recipe, "retrieve", FUSED)
    table, rows = scores([run], "retrieve"), run.read_scores()
    print(f"{given.preset}: top-1 / top-5, and how much more often the fusion is right")
    for k in sorted({int(k) for k in table.columns.get_level_values("k_repeats")}):
        print(f"    means of {k}" if k > 1 else "    single trials")
        more = {
            row["model"].removeprefix(f"{FUSED} - "): f"{row['value']:+.3f} ({row['low']:+.3f} .. {row['high']:+.3f})"
            for row in rows
            if row["metric"] == "right_more_often" and row["k_repeats"] == k and row["split"] == "test"
        }
        for model, row in table[k].dropna().iterrows():
            print(f"        {model!s:22s} {row['top1']:.3f} / {row['top5']:.3f}   {more.get(str(model), '')}")
        for pair in (pair for pair in more if " - " in pair):
            print(f"        {pair:38s} {more[pair]}")


if __name__ == "__main__":
    main()
