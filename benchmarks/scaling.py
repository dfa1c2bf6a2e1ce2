"""How time and memory of every stage grow with the data, and what the public data sets cost at the rates measured here.

    python benchmarks/scaling.py [growth|rates] [--sizes 1 2 4 8] [--axis people] [--folder DIR]

Without a word both.

growth  The simulated EEG study of `demo` as it grows two ways: by people (of one person's size each), and by what one
        person sees (exemplars of each concept: more pictures and a longer recording). Each stage in a process of its
        own, one thread, its work of steps fixed: seconds, peak anonymous memory, and the power of the size by which
        either grew from the second size to the last (1: linear; 0: not at all). The first size carries the start of
        a process.
rates   Seconds a recording of the true size (`benchmarks/convert.py`'s EEG; a MEG run of 348 s, 271 gradiometers,
        1200 Hz, simulated), trials a second of compact's training on one thread as the recipes have it, images a second
        of CLIP ViT-L/14 (random weights: the time is the same). From these: hours on one machine of two cores of the
        retrieval recipes with all they ask for (blurred images, the final fit), GB, and machine-days.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from convert import make_study, measured, peak_rss_anon
from simulation import quiet
from synapse_diffusion.config import Recipe, load_recipe
from synapse_diffusion.convert import convert
from synapse_diffusion.embed import embed
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.parallel import Group
from synapse_diffusion.simulate import simulate
from synapse_diffusion.train import train
from training import EEG, MEG, Trainer, write_store

AXES: Final = {"people": "simulate.people", "pictures and trials a person": "simulate.exemplars"}
UNIT: Final = {"people": 1, "pictures and trials a person": 6}
STAGES: Final = ("convert", "embed", "train", "evaluate")
PASSES: Final = 20
EEG_RECORDING: Final = 3_200_000  # samples of a recording of ds003825
MEG_RUN: Final = 348.0  # s


def overrides(axis: str, size: int, folder: Path) -> list[str]:
    """The study of this size and what is done with it."""
    grown = {"simulate.people": 1, "simulate.exemplars": 12} | {AXES[axis]: UNIT[axis] * size}
    paths = {f"paths.{name}": folder / name for name in ("bids", "stores", "runs", "embeddings")}
    fixed = {"train.steps": 200, "train.checks": 1, "train.batch": 64, "train.patience": 1, "execution.workers": 1}
    return [f"{key}={value}" for key, value in (grown | paths | fixed).items()]


def stage(name: str, axis: str, size: int, folder: Path) -> float:
    """Seconds of one stage, in this process."""
    torch.set_num_threads(1)
    recipe = load_recipe("demo_pictures", overrides(axis, size, folder))
    work: dict[str, Callable[[], object]] = {
        "convert": lambda: convert(recipe, quiet, quiet),
        "embed": lambda: embed(recipe, quiet, quiet),
        "train": lambda: train(recipe, "x", "benchmark", quiet, quiet),
        "evaluate": lambda: evaluate(next((folder / "runs").iterdir()), quiet, quiet),
    }
    started = time.perf_counter()
    work[name]()
    return time.perf_counter() - started


def worker(name: str, axis: str, size: int, folder: Path) -> None:
    """The same with its peak of anonymous memory; prints JSON."""
    done, peak = threading.Event(), [0.0]
    watcher = threading.Thread(target=peak_rss_anon, args=(done, peak))
    watcher.start()
    seconds = stage(name, axis, size, folder)
    done.set()
    watcher.join()
    print(json.dumps([seconds, peak[0]]))


def power(sizes: Sequence[int], values: Sequence[float]) -> float:
    """p where values grow as size ** p, from the second size to the last."""
    first = min(1, len(sizes) - 2)
    return math.log(values[-1] / values[first]) / math.log(sizes[-1] / sizes[first])


def growth(sizes: Sequence[int], axes: Sequence[str], scratch: Path) -> None:
    """Print seconds and memory of each stage at each size."""
    for axis in axes:
        found: dict[str, list[list[float]]] = {name: [] for name in STAGES}
        for size in sizes:
            folder = scratch / f"{AXES[axis]}-{size}"
            simulate(load_recipe("demo_pictures", overrides(axis, size, folder)), quiet, quiet)
            for name in STAGES:
                command = [sys.executable, __file__, "--worker", name, "--axis", axis, "--folder", str(folder)]
                command += ["--sizes", str(size)]
                text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[name].append(json.loads(text.strip().splitlines()[-1]))
        shown = " ".join(f"{size:>7d} x" for size in sizes)
        print(f"{axis + ', x ' + str(UNIT[axis]):34s} {shown}   grows as the size to the power")
        for name in STAGES:
            for what, k, form in (("s", 0, "9.1f"), ("MB", 1, "9,.0f")):
                values = [value[k] for value in found[name]]
                shown = " ".join(f"{value:{form}}" for value in values)
                print(f"    {f'{name}, {what}':30s} {shown}   {power(sizes, values):.2f}", flush=True)


@dataclass(frozen=True)
class DataSet:
    """What is public: recordings, their raw size and length, stored rate, and what was shown."""

    name: str
    recordings: int
    raw_gb: float
    minutes: float
    n_sensors: int
    stored_hz: float
    trials: int
    images: int
    recipe: str
    """Whose layers, passes and decoder are counted."""

    @property
    def plan(self) -> Recipe:
        """The recipe."""
        return load_recipe(self.recipe)

    @property
    def store_gb(self) -> float:
        """float32 signal."""
        return self.recordings * self.minutes * 60 * self.stored_hz * self.n_sensors * 4 / 1e9


PUBLIC: Final = (
    DataSet("THINGS-EEG1, 46 people", 46, 46 * 0.9, 53.3, 63, 250.0, 46 * 24_648, 22_448, "eeg_retrieval"),
    DataSet("THINGS-MEG, 4 x 120 runs", 480, 480 * 0.5, 5.8, 271, 200.0, 4 * 24_648, 22_448, "meg_retrieval"),
    DataSet("THINGS-EEG2, 10 x 4 sessions", 40, 40 * 2.1, 68.5, 63, 250.0, 10 * 82_160, 16_740, "eeg2_retrieval"),
)  # fmt: skip


@dataclass(frozen=True)
class Rates:
    """Measured on this machine."""

    eeg_s: float
    meg_s: float
    trials_per_s: dict[str, float]
    """By recipe."""
    images_per_s: float


def clip_rate() -> float:
    """Images a second of CLIP's ViT-L/14, all threads."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14,
        projection_dim=768,
    )  # fmt: skip
    model, x_B3HW = CLIPVisionModelWithProjection(config).eval(), torch.randn(8, 3, 224, 224)
    with torch.inference_mode():
        model(x_B3HW[:1])
        started = time.perf_counter()
        model(x_B3HW)
    return len(x_B3HW) / (time.perf_counter() - started)


def meg_seconds(scratch: Path) -> float:
    """Converting one simulated run of the true size."""
    n_trials = int(MEG_RUN / 1.5)
    sizes = ["channels=271", "sfreq=1200", "sessions=1", "runs=1", "people=1", "onset_distance_s=1.5", "test_repeats=1"]
    sizes += [f"exemplars={max(1, (n_trials - 48) // 72)}", "catch_share=0.1"]
    paths = [f"paths.{name}={scratch / 'meg' / name}" for name in ("bids", "stores")]
    recipe = load_recipe("demo_meg", [f"simulate.{size}" for size in sizes] + paths + ["convert.sfreq=200"])
    simulate(recipe, quiet, quiet)
    started = time.perf_counter()
    convert(recipe, quiet, quiet)
    return time.perf_counter() - started


def rates(scratch: Path) -> Rates:
    """Measure and print."""
    make_study(scratch / "eeg", EEG_RECORDING)
    runs = [measured("ours", scratch / "eeg", scratch / f"out{k}", None) for k in range(3)]
    eeg_s = float(np.median([run["seconds"] for run in runs]))
    trained = {}
    for data in PUBLIC:
        folder, model, train = scratch / f"stores-{data.recipe}", data.plan.model, data.plan.train
        size, n_trials = (MEG, 800) if data.plan.data.modality == "meg" else (EEG, 4000)
        write_store(folder, size, "01", "01", n_trials)
        means = [f"train.repeats={train.repeats}", f"train.repeat_weights={train.repeat_weights}"]
        torch.set_num_threads(1)
        fitted = Trainer(folder, size, scratch).fit("compact", 60, 64, Group(), [f"model.width={model.width}", *means])
        trained[data.recipe] = fitted.trials_per_s
    torch.set_num_threads(2)
    found = Rates(eeg_s, meg_seconds(scratch), trained, clip_rate())
    print(f"convert: {found.eeg_s:.1f} s an EEG recording of {EEG_RECORDING:,d} samples, {found.meg_s:.1f} s a MEG run")
    rate = ", ".join(f"{per_s:,.0f} ({name})" for name, per_s in trained.items())
    print(f"train, compact, one thread, trials/s: {rate}")
    print(f"embed, CLIP ViT-L/14, two threads: {found.images_per_s:.2f} images/s")
    return found


def costs(found: Rates) -> None:
    """Print hours and GB of the public data sets, once and a hundred times."""
    print(
        f"{'':30s}{'raw GB':>9s}{'stores GB':>11s}{'convert h':>11s}{'embed h':>9s}{'train h':>9s}{'machine-days':>14s}"
    )
    for times in (1, 100):
        for data in PUBLIC:
            plan = data.plan
            convert_h = times * data.recordings * (found.meg_s if plan.data.modality == "meg" else found.eeg_s) / 3600
            embed_h = (1 + len(plan.embed.blur)) * data.images / found.images_per_s / 3600  # the pictures stay the same
            passes = PASSES * (2 if plan.train.refit else 1)
            train_h = times * passes * data.trials / found.trials_per_s[data.recipe] / 3600
            days = (convert_h + embed_h + train_h) / 24
            values = (times * data.raw_gb, times * data.store_gb, convert_h, embed_h, train_h, days)
            name = data.name + (" x 100" if times > 1 else "")
            print(f"{name:32s}" + "".join(f"{value:14,.1f}" for value in values))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["growth", "rates"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--worker", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--axis", choices=list(AXES), help="of `growth`; both without")
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.axis, given.sizes[0], given.folder)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        if given.what != "rates":
            growth(given.sizes, [given.axis] if given.axis else list(AXES), Path(scratch))
        if given.what != "growth":
            costs(rates(Path(scratch)))


if __name__ == "__main__":
    main()
