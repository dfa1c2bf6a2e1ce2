"""What each choice of target, loss, augmentation and start buys in retrieval, one at a time, on real photos.

    python benchmarks/ablation.py FOLDER [--data ../shared/data] [--steps 600] [--seeds 2] [--only NAME ...]
        [--processes 1]

The study is `benchmarks/semireal.py`'s (EEG, `demo`); the decoder is compact, with layers of sharp pictures alone,
trained once a seed without a final fit. Printed: validation loss (by which one would choose), and top-1 / top-5 on test
of single trials and means of 12, with how much more often the changed decoder is right than the unchanged one: 95 %
interval over images, whose seeds are averaged. Nothing was chosen by these test scores. Work that is done is not
repeated; `--processes`: so many fits side by side.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from decoders import OURS, recipe_of, right, scores, side_by_side, tested
from semireal import DATA, SHARP, TARGETS, build
from synapse_diffusion.config import Recipe, parse_recipe
from synapse_diffusion.metrics import paired_difference
from synapse_diffusion.runs import Run

RATE: Final = 0.006
CHANGES: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "as it is": {},
    "no learned map of images": {"target": {"projection": 0}},
    "map of 16 numbers": {"target": {"projection": 16}},
    "map of 256 numbers": {"target": {"projection": 256}},
    "first layer alone (conv8)": {"target": {"layers": ["conv8"]}},
    "middle layer alone (conv12)": {"target": {"layers": ["conv12"]}},
    "last layer alone (logits)": {"target": {"layers": ["logits"]}},
    "similarity judgements alone (SPoSE)": {"target": {"layers": ["spose"]}},
    "learned weights of layers": {"target": {"weights": "learned"}},
    "targets also of blurred images": {"target": {"layers": list(TARGETS)}},
    "SigLIP": {"loss": {"name": "siglip"}},
    "cosine loss": {"loss": {"name": "cosine"}},
    "squared loss": {"loss": {"name": "squared"}},
    "MMD first": {"loss": {"mmd_share": 0.2}},
    "means of up to 3 repeats": {"train": {"repeats": 3}},
    "the same, random weights": {"train": {"repeats": 3, "repeat_weights": "random"}},
    "512 temporal filters": {"model": {"width": 512}},
    "512, means of up to 4, random weights": {
        "model": {"width": 512},
        "train": {"repeats": 4, "repeat_weights": "random"},
    },
    "time shift 16 ms": {"train": {"time_shift_s": 0.016}},
    "noise 0.5": {"train": {"noise": 0.5}},
    "sensor dropout 0.2": {"train": {"channel_dropout": 0.2}},
    "no averaged weights": {"train": {"ema": 0.0}},
    "3 members": {"train": {"members": 3}},
    "robust scaling, no whitening": {"view": {"scaling": "robust"}},
    "0 .. 0.4 s": {"view": {"stop_s": 0.4}},
}


def changed(base: Recipe, seed: int, steps: int, change: dict[str, dict[str, Any]]) -> Recipe:
    """The base recipe with a change."""
    values = recipe_of(base, "retrieve", OURS, RATE, seed, steps, final=False).model_dump(mode="json")
    values["target"]["layers"] = list(SHARP)
    for branch, settings in change.items():
        values[branch] |= settings
    return parse_recipe(values)


def row(name: str, runs: Sequence[Run], unchanged: Sequence[Run]) -> str:
    """One line of the table."""
    loss = np.mean([pd.read_csv(run.folder / "curve.tsv", sep="\t")["validation_loss"].min() for run in runs])
    table, parts = scores(runs, "retrieve").loc[OURS], [f"{name:38s}{loss:8.4f}"]
    for k in sorted({int(k) for k, _ in table.index}):
        both = pd.concat([right(r, OURS, k, "retrieve") for r in (runs, unchanged)], axis=1, join="inner")
        pair_N2 = both.to_numpy(float)
        value, low, high = paired_difference(
            pair_N2[:, 0], pair_N2[:, 1], np.arange(len(pair_N2)), 5000, np.random.default_rng(0)
        )
        found = f"{table[k, 'top1']:.3f} / {table[k, 'top5']:.3f}"
        parts.append(f"   {found}   {value:+.3f} ({low:+.3f} .. {high:+.3f})")
    return "".join(parts)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=list(CHANGES), choices=list(CHANGES))
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    base = build(given.folder, given.data)
    print(f"{'':38s}{'loss':>8s}   single trials, top-1 / top-5, and difference; the same of means of 12")
    names = list(dict.fromkeys(["as it is", *given.only]))
    plans = [
        (changed(base, seed, given.steps, CHANGES[name]), "retrieve", OURS)
        for name in names
        for seed in range(given.seeds)
    ]
    made, unchanged = side_by_side(tested, plans, given.processes), list[Run]()
    for name in names:
        runs = [next(made) for _ in range(given.seeds)]
        unchanged = unchanged or runs
        print(row(name, runs, unchanged), flush=True)


if __name__ == "__main__":
    main()
