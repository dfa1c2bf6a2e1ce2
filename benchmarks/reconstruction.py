"""Pictures drawn from a brain, on real photos shown to simulated people (`semireal.py`): held-out concepts, controls.

    python benchmarks/reconstruction.py FOLDER [--data ../shared/data] [--modality eeg|meg|comb]
                                        [--preset demo|realistic] [--generator stages|network] [--seed 0]
                                        [--set A.B=VALUE ...]

Trains a decoder of Tiny Darknet's layers and SPoSE, and a generator of TAEF2's latents on pictures of training concepts
(128 x 128; `--set generator.autoencoder=none --set generator.weights= --set generator.size=32 --set generator.patch=4`:
of pixels), reconstructs every test picture, and prints a row for each source of pictures: people's mean at each k.
`comb`: from EEG and MEG together, and from each alone. Work that is done is not repeated.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from pathlib import Path
from typing import Any

import semireal
from fusion import fusion_recipe
from synapse_diffusion.config import Recipe, dump_recipe, parse_recipe
from synapse_diffusion.convert import convert_pairs
from synapse_diffusion.generate import train_generator
from synapse_diffusion.reconstruct import reconstruct
from synapse_diffusion.train import train

STEPS = 400
DARKNET = "tiny_darknet_imagenet.safetensors"
METRICS = (
    "pixcorr", "ssim", "mean_colour", "two_way pixels", "two_way_within_category pixels", "two_way gist",
    "two_way TinyDarknet-late", "two_way_within_category TinyDarknet-late",
)  # fmt: skip
SETTINGS = (
    "target.task=retrieve", "target.table=targets", "target.layers=conv12,conv14,spose", "target.components=128",
    f"train.steps={STEPS}", "train.checks=10", "generator.autoencoder=taesd", "generator.size=128", "generator.patch=2",
    "generator.steps=600", "reconstruct.k_repeats=[0]", "reconstruct.samples=3",
)  # fmt: skip


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The semi-real study's recipe, for pictures."""
    modalities = ["eeg", "meg"] if arguments.modality == "comb" else [arguments.modality]
    studies = [
        semireal.build(
            arguments.folder, arguments.data, modality, arguments.preset, arguments.seed, generator=arguments.generator
        )
        for modality in modalities
    ]
    study = studies[0]
    if len(studies) == 2:
        study = fusion_recipe(studies[0], studies[1], STEPS, 1)
        convert_pairs(study, semireal.quiet)
    weights = arguments.data / "weights"
    files = [f"reconstruct.darknet={weights / DARKNET}", f"generator.weights={weights / 'taef2'}"]
    return parse_recipe(tomllib.loads(dump_recipe(study)), [*SETTINGS, *files, *arguments.set])


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each source and k."""
    mine = [row for row in rows if row["person"] == "all"]
    names = dict.fromkeys((row["model"], row["k_repeats"]) for row in mine)
    lines = ["| pictures from | k | " + " | ".join(METRICS) + " |", "|---" * (2 + len(METRICS)) + "|"]
    for model, k in names:
        of = {row["metric"]: row for row in mine if (row["model"], row["k_repeats"]) == (model, k)}
        cells = [
            "" if m not in of else f"{of[m]['value']:.3f} ({of[m]['low']:.3f} .. {of[m]['high']:.3f})" for m in METRICS
        ]
        lines.append(f"| {model} | {k or ''} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=semireal.DATA)
    parser.add_argument("--modality", default="eeg", choices=("eeg", "meg", "comb"))
    parser.add_argument("--preset", default="demo", choices=("demo", "realistic"))
    parser.add_argument("--generator", default="stages", choices=("stages", "network"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    began = time.perf_counter()
    recipe = recipe_of(arguments)
    run = train(recipe, "reconstruction", "benchmark", semireal.quiet, semireal.quiet)
    made = train_generator(recipe, "benchmark", print, semireal.quiet)
    trained = time.perf_counter() - began
    out, rows = reconstruct(run.folder, (), print, semireal.quiet)
    print("\n".join(table(rows)))
    print(f"{trained:.0f} s to data, decoder and {made.folder}, {time.perf_counter() - began:.0f} s in all; {out}")


if __name__ == "__main__":
    main()
