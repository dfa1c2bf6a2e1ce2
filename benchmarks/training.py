"""Training: trials a second against the usual ways, waiting for data, memory, and two processes against one.

    python benchmarks/training.py [speed|waits|memory|processes] [--rounds 9] [--batch 64] [--folder DIR] [--device cpu]

Without a word all four. One thread of mathematics everywhere; noise in stores (EEG: 63 sensors x 250 samples, a picture
every 25; MEG: 271 x 200, every 300), trained by `training.fitting.fit` with all that a fit has: whitening, feeding,
clipping, schedule, averaged weights. Twelve classes.

speed      NICE's TSConv (250 Hz) and EEGNet (at its paper's 128 Hz: all its lengths in samples are then the published
           ones), one person, EEG's size, each trained three ways in turn in this process: by us; by braindecode 0.8.1
           and skorch from arrays in memory (TSConv, which braindecode lacks, as published in plain layers); by a plain
           PyTorch loop over the published layers and a shuffled DataLoader with one worker over an HDF5 file of scaled
           epochs. Ours also scales while it trains. Trials a second of steady steps, medians; the ratio's geometric
           mean with its lower 95 % bound (one-sided, Student's t on the logarithms).
waits      The share of a step in which it waits for its batch (`Feed.waited_s`), two people.
memory     Peak anonymous memory of a process that opens 8,000 trials, scales and trains, and of one with 64,000.
processes  A fit of one process, then one of two (DDP, gloo) on the same batches, in turn; ratios as above.

braindecode 0.8.1 is no dependency: pip install braindecode==0.8.1 skorch h5py, in an environment of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast
from unittest import mock

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from convert import peak_rss_anon
from speed import PUBLISHED_FEATURES, positions, published
from synapse_diffusion.config import parse_recipe
from synapse_diffusion.parallel import Group, choose_device, launch, most, session, use_threads, wait_for_all
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import draft_store, find_stores, open_store
from synapse_diffusion.training import fitting
from synapse_diffusion.training.data import ScaledEpochs, fit_scalers
from synapse_diffusion.training.decoders import build_learner, shape_of
from synapse_diffusion.training.examples import Batch, Examples, Trials
from synapse_diffusion.training.feeding import Feed
from synapse_diffusion.training.objectives import Classes
from synapse_diffusion.training.requests import Requests
from synapse_diffusion.types import SensorArray

CLASSES, WARM, SHOWN = 12, 4, 4
LONGER = 8  # times the steps on a GPU
WHAT: Final = ("speed", "waits", "memory", "processes")


@dataclass(frozen=True)
class Size:
    """Sensors, samples of an epoch, rate in Hz, samples from one onset to the next."""

    n_sensors: int
    n_times: int
    sfreq: float
    distance: int


EEG, EEG_128, MEG = Size(63, 250, 250.0, 25), Size(63, 250, 128.0, 25), Size(271, 200, 200.0, 300)


def write_store(folder: Path, size: Size, person: str, session_name: str, n_trials: int) -> None:
    """A recording of noise of its own: the trials of a copy are not used."""
    rng = np.random.default_rng([int(person), int(session_name)])
    onset = 100 + size.distance * np.arange(n_trials)
    n_samples = int(onset[-1]) + size.n_times + 100
    names = [f"S{k:03d}" for k in range(size.n_sensors)]
    table = {
        "trial_id": [f"{person}-{session_name}-{k}" for k in range(n_trials)], "image_id": "n/a", "concept": "n/a",
        "person": person, "session": session_name, "run": "x-01", "sequence": 0, "repeat": 0, "onset_sample": onset,
        "duration_s": 0.1, "is_test": 0, "is_target": 0, "is_catch": 0,
        "label": rng.integers(0, CLASSES, n_trials).astype(str),
    }  # fmt: skip
    kinds, units = ("eeg",) * size.n_sensors, ("V",) * size.n_sensors
    sensors = SensorArray(tuple(names), kinds, units, np.array(positions(size.n_sensors)), ("good",) * size.n_sensors)
    with draft_store(folder / f"x/sub-{person}/ses-{session_name}/run-x-01") as draft:
        signal_TC = draft.signal(n_samples, size.n_sensors)
        for start in range(0, n_samples, 50_000):
            rng.standard_normal(out=signal_TC[start : start + 50_000], dtype=np.float32)
        draft.finish(size.sfreq, sensors, pd.DataFrame(table), [], {"settings_digest": ""})


class Watched(Feed):
    """A fit's feed, and when steady steps began and ended."""

    began = ended = waited_before = 0.0
    last: Watched

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The same batches."""
        Watched.last = self
        for step, batch in zip(range(start, stop), super().batches(start, stop), strict=True):
            if step == WARM:
                self.began, self.waited_before = time.perf_counter(), self.waited_s
            yield batch
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ended = time.perf_counter()


@dataclass(frozen=True)
class Fitted:
    """Steady steps of a fit."""

    trials_per_s: float
    waited: float
    """Share of the time."""


class Trainer:
    """Fits on the stores of a folder."""

    def __init__(self, folder: Path, size: Size, scratch: Path, device: str = "cpu") -> None:
        stores = [open_store(path, verify_signal=False) for path in find_stores(folder, "x")]
        epochs = Epochs(stores, 0.0, size.n_times / size.sfreq, device=choose_device(device))
        recipe = parse_recipe({})
        self.scratch, self.rows = scratch, np.flatnonzero(epochs.trials["usable"])
        self.label_N = epochs.trials["label"].to_numpy().astype(np.int64)
        self.person_N = np.unique(epochs.trials["person"], return_inverse=True)[1]
        scalers = fit_scalers(epochs, self.rows, self.label_N, recipe.view, "x", 0)
        self.data = {"eeg": ScaledEpochs(epochs, scalers, "x", recipe.view)}

    def fit(self, model: str, steps: int, batch: int, group: Group, settings: Sequence[str] = ()) -> Fitted:
        """Trials a second, and the share of waiting; each image counts as shown `SHOWN` times, one after the other."""
        plan = [f"model.name={model}", f"train.steps={WARM + steps}", "train.checks=1", f"train.batch={batch}"]
        recipe = parse_recipe({}, [*plan, *settings])
        each = np.arange(len(self.rows))
        trials = Trials(self.rows, self.person_N[self.rows], each, each // SHOWN)
        examples = Examples({"eeg": trials}, self.label_N[self.rows])
        n_people = int(self.person_N.max()) + 1
        shapes = {"eeg": shape_of(self.data["eeg"].epochs, CLASSES, n_people)}
        torch.manual_seed(0)
        objective = Classes(torch.from_numpy(examples.target_I), CLASSES, 0.0)
        learner = build_learner(shapes, objective, recipe, len(each), group)
        course = fitting.Course(
            self.data, examples, None, recipe.train, recipe.execution, (0,), self.scratch / "unfinished.safetensors",
            group, Requests(recipe.execution.checkpoint_minutes),
        )  # fmt: skip
        with mock.patch.object(fitting, "Feed", Watched):
            fitting.fit(learner, course, lambda _: self.label_N, lambda *_: None)
        feed = Watched.last
        seconds = feed.ended - feed.began
        return Fitted(steps * batch / seconds, (feed.waited_s - feed.waited_before) / seconds)


def published_eegnet() -> nn.Module:
    """EEGNet-8,2 (Lawhern et al. 2018, table 2) in the order and at the lengths of its authors, for 128 Hz."""
    n_sensors, n_times = EEG.n_sensors, EEG.n_times
    return nn.Sequential(
        nn.Unflatten(1, (1, n_sensors)), nn.Conv2d(1, 8, (1, 64), padding=(0, 32), bias=False), nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, (n_sensors, 1), groups=8, bias=False), nn.BatchNorm2d(16), nn.ELU(), nn.AvgPool2d((1, 4)),
        nn.Dropout(0.5), nn.Conv2d(16, 16, (1, 16), padding=(0, 8), groups=16, bias=False),
        nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ELU(), nn.AvgPool2d((1, 8)), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(16 * (n_times // 4 // 8), CLASSES),
    )  # fmt: skip


def published_tsconv() -> nn.Module:
    """NICE's, with a linear layer for classes."""
    return nn.Sequential(published(EEG.n_sensors), nn.Linear(PUBLISHED_FEATURES, CLASSES))


class Hdf5Epochs(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Scaled epochs of an HDF5 file, one a call; each process opens the file for itself."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.path, self.file = path, cast("Any", None)
        with h5py.File(path, "r") as file:
            self.n = len(file["y"])

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.file is None:
            import h5py

            self.file = h5py.File(self.path, "r")
        return torch.from_numpy(self.file["x"][index]), int(self.file["y"][index])


def plain_loop(model: nn.Module, path: Path, steps: int, batch: int, device: str) -> float:
    """Trials a second of a plain loop over a DataLoader; with pinned copies to a GPU."""
    model = model.to(device)
    pinned = device != "cpu"
    loader = torch.utils.data.DataLoader(
        Hdf5Epochs(path), batch, shuffle=True, drop_last=True, num_workers=1, pin_memory=pinned,
        multiprocessing_context="fork",
    )  # fmt: skip
    optimizer, loss = torch.optim.AdamW(model.parameters(), 2e-4), nn.CrossEntropyLoss()
    model.train()
    began = ended = 0.0
    passes = (batch for _ in range(2 + (WARM + steps) // len(loader)) for batch in loader)
    for step, (x_BCT, y_B) in enumerate(passes):
        if step == WARM:
            began = time.perf_counter()
        if step == WARM + steps:
            if pinned:
                torch.cuda.synchronize()
            ended = time.perf_counter()  # here: leaving the loop also waits for the worker to end
            break
        x_BCT, y_B = (value.to(device, non_blocking=pinned) for value in (x_BCT, y_B))
        optimizer.zero_grad()
        loss(model(x_BCT), y_B).backward()
        optimizer.step()
    return steps * batch / (ended - began)


def by_skorch(
    model: nn.Module, x_NCT: NDArray[np.float32], y_N: NDArray[np.int64], steps: int, batch: int, device: str
) -> float:
    """Trials a second of braindecode's classifier, from arrays in memory."""
    net = importlib.import_module("braindecode").EEGClassifier(
        model, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, optimizer__lr=2e-4, batch_size=batch,
        train_split=None, iterator_train__shuffle=True, max_epochs=1, verbose=0, classes=list(range(CLASSES)),
        device=device,
    )  # fmt: skip
    warm, n = WARM * batch, min(len(y_N), steps * batch)
    net.partial_fit(x_NCT[:warm], y_N[:warm])
    began = time.perf_counter()
    net.partial_fit(x_NCT[:n], y_N[:n])
    return n / (time.perf_counter() - began)


def has_braindecode() -> bool:
    """Is it there?"""
    if not all(importlib.util.find_spec(name) for name in ("braindecode", "skorch")):
        print("    braindecode is left out; pip install braindecode==0.8.1 skorch h5py in an environment of its own")
        return False
    return True


def eegnet_of_braindecode() -> nn.Module:
    """Its EEGNet-8,2 at its defaults, with the paper's dropout."""
    form = importlib.import_module("braindecode.models").EEGNetv4
    model: nn.Module = form(n_chans=EEG.n_sensors, n_outputs=CLASSES, n_times=EEG.n_times, drop_prob=0.5)
    return model


def bound(log_ratio: NDArray[np.float64]) -> str:
    """Geometric mean and its one-sided lower 95 % bound."""
    n = len(log_ratio)
    low = log_ratio.mean() - stats.t.ppf(0.95, n - 1) * log_ratio.std(ddof=1) / np.sqrt(n)
    return f"{np.exp(log_ratio.mean()):.2f} times, at least {np.exp(low):.2f}"


def race(ways: dict[str, Callable[[], float]], rounds: int) -> None:
    """Interleaved rounds; the first of the ways against each of the others."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(way())
    ours, *others = rates
    for name, values in rates.items():
        print(f"    {name:28s} {statistics.median(values):9,.0f} trials/s")
    for other in others:
        print(f"    {ours} / {other}: {bound(np.log(np.array(rates[ours]) / np.array(rates[other])))}")


def speed(scratch: Path, rounds: int, batch: int, device: str) -> None:
    """TSConv and EEGNet, three ways."""
    import h5py

    for model, size in {"tsconv": EEG, "eegnet": EEG_128}.items():
        folder = scratch / f"speed-{model}"
        write_store(folder, size, "01", "01", 3000)
        trainer = Trainer(folder, size, scratch, device)
        x_NCT, y_N = trainer.data["eeg"].read(trainer.rows).cpu().numpy(), trainer.label_N[trainer.rows]
        path = folder / "epochs.h5"
        with h5py.File(path, "w") as file:
            file["x"], file["y"] = x_NCT, y_N
        print(f"{model}, {size.n_sensors} x {size.n_times}, batch {batch}, {device}, one thread")
        race(ways_of(model, trainer, path, x_NCT, y_N, batch, device), rounds)


def ways_of(
    model: str, trainer: Trainer, path: Path, x_NCT: NDArray[np.float32], y_N: NDArray[np.int64], batch: int,
    device: str,
) -> dict[str, Callable[[], float]]:  # fmt: skip
    """Trials a second of the ways to train one model."""
    plain = {"tsconv": published_tsconv, "eegnet": published_eegnet}[model]
    longer, steps = (24, 8) if device == "cpu" else (24 * LONGER, 8 * LONGER)  # ours is through sooner
    ways: dict[str, Callable[[], float]] = {
        "ours": lambda: trainer.fit(model, longer, batch, Group()).trials_per_s,
        "PyTorch, DataLoader, HDF5": lambda: plain_loop(plain(), path, steps, batch, device),
    }
    if has_braindecode():
        make = plain if model == "tsconv" else eegnet_of_braindecode
        ways["braindecode, skorch"] = lambda: by_skorch(make(), x_NCT, y_N, steps, batch, device)
    return ways


def waits(scratch: Path, batch: int, device: str) -> None:
    """How long steps wait for their batches."""
    print(f"waiting for data, share of a step, batch {batch}, {device}, one thread")
    for name, size, n_trials in (("EEG", EEG, 4000), ("MEG", MEG, 800)):
        folder = scratch / f"waits-{name}"
        for person in ("01", "02"):
            write_store(folder, size, person, "01", n_trials)
        trainer = Trainer(folder, size, scratch, device)
        for model in ("tsconv", "eegnet", "compact"):
            fitted = trainer.fit(model, 60 if device == "cpu" else 60 * LONGER, batch, Group())
            print(f"    {name} {model:8s} {fitted.trials_per_s:9,.0f} trials/s   waited {100 * fitted.waited:5.1f} %")


def fit_and_measure(folder: Path, scratch: Path, model: str) -> None:
    """In a process of its own; prints JSON."""
    done, peak = threading.Event(), [0.0]
    watcher = threading.Thread(target=peak_rss_anon, args=(done, peak))
    watcher.start()
    trainer = Trainer(folder, EEG, scratch)
    trainer.fit(model, 200, 64, Group())
    done.set()
    watcher.join()
    print(json.dumps({"trials": len(trainer.rows), "peak_mb": peak[0]}))


def memory(scratch: Path) -> None:
    """Peak anonymous memory on little and on much."""
    print("peak anonymous memory of opening, scaling and training")
    folders = []
    for n_sessions in (1, 8):
        folders.append(scratch / f"memory-{n_sessions}")
        for person in ("01", "02"):
            for k in range(n_sessions):
                write_store(folders[-1], EEG, person, f"{k + 1:02d}", 4000)
    for model in ("tsconv", "compact"):
        for folder in folders:
            command = [sys.executable, __file__, "--worker", str(folder), "--folder", str(scratch), "--model", model]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = json.loads(text.strip().splitlines()[-1])
            wanted = 8000 * int(folder.name.rpartition("-")[2])
            assert found["trials"] == wanted, f"{found['trials']} trials were trained on, not {wanted}"
            print(f"    {model:8s} {found['trials']:7,d} trials   {found['peak_mb']:6.0f} MB")


def in_turn(tell: Callable[[Any], None], folder: str, scratch: str, model: str, rounds: int, batch: int) -> None:
    """One of two processes: both train together, then the first alone."""
    use_threads(1)
    with session(torch.device("cpu")) as group:
        trainer = Trainer(Path(folder), EEG, Path(scratch) / str(group.rank))
        trainer.scratch.mkdir(exist_ok=True)
        for _ in range(rounds):
            two = trainer.fit(model, 30, batch, group)
            wait_for_all(group)
            if group.rank == 0:
                one = trainer.fit(model, 30, batch, Group())
                tell((one.trials_per_s, two.trials_per_s, os.getloadavg()[0]))
            most(0, group)


def processes(scratch: Path, rounds: int, models: Sequence[str]) -> None:
    """One process of one thread, and two."""
    folder = scratch / "processes"
    for person in ("01", "02"):
        write_store(folder, EEG, person, "01", 3000)
    for model in models:
        told: list[tuple[float, float, float]] = []
        launch(2, in_turn, str(folder), str(scratch), model, rounds, 128, hear=told.append)
        one, two, load = np.array(told).T
        print(f"{model}, EEG, batch 128, processes of one thread; load of the machine {load.mean():.1f}")
        print(f"    one {np.median(one):,.0f} trials/s, two {np.median(two):,.0f}: {bound(np.log(two / one))}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=WHAT)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--device", default="cpu", help="of `speed` and `waits`")
    parser.add_argument("--models", nargs="*", default=["tsconv"], help="of `processes`")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.worker:
        return fit_and_measure(given.worker, given.folder, given.model)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        scratch = Path(name)
        for what in [given.what] if given.what else WHAT:
            if what == "speed":
                speed(scratch, given.rounds, given.batch, given.device)
            elif what == "waits":
                waits(scratch, given.batch, given.device)
            elif what == "memory":
                memory(scratch)
            else:
                processes(scratch, given.rounds, given.models)
    return None


if __name__ == "__main__":
    main()
