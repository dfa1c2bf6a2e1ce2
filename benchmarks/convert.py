"""Conversion speed and memory against MNE, on one recording of the true size of ds003825, or one run of ds004212.

    python benchmarks/convert.py [--pairs 5] [--minutes 53.33] [--folder DIR]
    python benchmarks/convert.py --meg BIDS --things THINGS [--pairs 5]

The first writes a BrainVision file (63 channels, 1 kHz, float32; 3.2 million samples by default, 24,648 trials) and
runs, interleaved and each in a process of its own:

    ours        raw file -> signal store (dropout scan, filter, bad channels, average reference, checksum)
    continuous  MNE: read, filter, set_eeg_reference, resample(method="polyphase"), save
    epochs      MNE: the same, then Epochs of -0.1..1 s, saved

0.1-100 Hz, average reference, 250 Hz. The second takes the first run of a BIDS data set in the form of ds004212 (CTF;
THINGS: the folder with things_images.csv) at 0.1-40 Hz and 200 Hz, without `epochs`, and prints the hours that 480 runs
take. Both print seconds, ratios of medians, peak anonymous memory, agreement of
the numbers, and epochs a second cut from the store on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from synapse_diffusion.config import Recipe

SFREQ, N_SENSORS, BLOCK = 1000, 63, 50_000


def make_study(folder: Path, n_samples: int) -> None:
    """A BIDS data set of one person: 1/f noise, drift, offsets, mains hum; a picture every 100 ms."""
    import mne
    import pybv

    from synapse_diffusion.bids import standard_positions

    eeg = folder / "sub-01/eeg"
    eeg.mkdir(parents=True)
    mne.set_log_level("error")
    names = [n for n in standard_positions() if n in mne.channels.make_standard_montage("easycap-M1").ch_names]
    rng = np.random.default_rng(0)
    offset = rng.standard_normal(N_SENSORS) * 10_000.0
    # pybv writes the header from a few samples; the data follow in blocks, so that memory stays small
    header = np.zeros((N_SENSORS, 10))
    pybv.write_brainvision(
        data=header, sfreq=SFREQ, ch_names=names[:N_SENSORS], fname_base="sub-01_task-rsvp_eeg",
        folder_out=str(eeg), resolution=0.1, unit="µV", fmt="binary_float32",
    )  # fmt: skip
    walk = np.zeros(N_SENSORS)
    with (eeg / "sub-01_task-rsvp_eeg.eeg").open("wb") as file:
        for start in range(0, n_samples, BLOCK):
            n = min(BLOCK, n_samples - start)
            common = np.cumsum(rng.standard_normal((n, 1)), axis=0) * 0.02
            steps = np.cumsum(rng.standard_normal((n, N_SENSORS)) * 0.3, axis=0) + walk
            walk = steps[-1]
            t = (start + np.arange(n))[:, None] / SFREQ
            x = offset + common + steps + rng.standard_normal((n, N_SENSORS)) * 5 + 3 * np.sin(2 * np.pi * 50 * t)
            file.write((x / 0.1).astype("<f4").tobytes())
    n_trials = min(24_648, n_samples // 100 - 30)
    sample = 1000 + 100 * np.arange(n_trials)
    rows = "".join(f"{s / SFREQ}\t0.05\tc{k % 1854}/c{k % 1854}_{k:05d}.jpg\t{s}\n" for k, s in enumerate(sample))
    (eeg / "sub-01_task-rsvp_events.tsv").write_text("onset\tduration\tstim\tsample\n" + rows)


def meg_recipe(bids: Path, things: Path, out: Path) -> Recipe:
    """The shipped recipe on the first run there."""
    from synapse_diffusion.bids import find_recordings
    from synapse_diffusion.config import load_recipe

    paths = [f"paths.bids={bids}", f"paths.things={things}", f"paths.stores={out}", "execution.workers=1"]
    recipe = load_recipe("meg_fruit_furniture", paths)
    first = find_recordings(bids, recipe.data, print)[0]
    which = [f"data.people={first.person}", f"data.sessions={first.session}", f"data.runs={first.run.split('-')[-1]}"]
    return load_recipe("meg_fruit_furniture", [*paths, *which])


def ours_meg(bids: Path, things: Path, out: Path) -> float:
    """Seconds for the conversion of one CTF run."""
    from synapse_diffusion.convert import convert

    recipe = meg_recipe(bids, things, out)
    start = time.perf_counter()
    convert(recipe, print, lambda *_: None)
    return time.perf_counter() - start


def mne_meg(bids: Path, things: Path, out: Path) -> float:
    """Seconds for plain MNE on the same run."""
    import mne

    from synapse_diffusion.bids import find_recordings

    mne.set_log_level("error")
    path = find_recordings(bids, meg_recipe(bids, things, out).data, print)[0].path
    start = time.perf_counter()
    raw = mne.io.read_raw_ctf(path, preload=True, clean_names=True)
    raw.filter(0.1, 40.0)
    raw.resample(200, method="polyphase")
    raw.save(out / "x_raw.fif")
    return time.perf_counter() - start


def ours(folder: Path, out: Path) -> float:
    """Seconds for the conversion itself."""
    from synapse_diffusion.config import parse_recipe
    from synapse_diffusion.convert import convert

    recipe = parse_recipe(
        {"paths": {"bids": str(folder), "stores": str(out)}, "data": {"events": {"image": "stim"}}},
        ["convert.lowpass_hz=100.0"],
    )
    start = time.perf_counter()
    convert(recipe, print, lambda *_: None)
    return time.perf_counter() - start


def continuous(folder: Path, out: Path, *, epochs: bool = False) -> float:
    """Seconds for plain MNE."""
    import mne

    mne.set_log_level("error")
    start = time.perf_counter()
    raw = mne.io.read_raw_brainvision(folder / "sub-01/eeg/sub-01_task-rsvp_eeg.vhdr", preload=True)
    raw.filter(0.1, 100.0)
    raw.set_eeg_reference("average")
    raw.resample(250, method="polyphase")
    if epochs:
        table = np.genfromtxt(folder / "sub-01/eeg/sub-01_task-rsvp_events.tsv", skip_header=1, usecols=(0,))
        events = np.column_stack([np.rint(table * 250), np.zeros(len(table)), np.ones(len(table))]).astype(int)
        mne.Epochs(raw, events, tmin=-0.1, tmax=1.0, baseline=None, preload=True).save(out / "x-epo.fif")
    else:
        raw.save(out / "x_raw.fif")
    return time.perf_counter() - start


def peak_rss_anon(done: threading.Event, peak: list[float]) -> None:
    """Follow this process's anonymous memory in MB."""
    while not done.is_set():
        text = Path("/proc/self/status").read_text()
        peak[0] = max(peak[0], int(text.split("RssAnon:")[1].split()[0]) / 1024)
        done.wait(0.02)


def worker(name: str, folder: Path, out: Path, things: Path | None) -> None:
    """One measured run in this process; prints JSON."""
    done, peak = threading.Event(), [0.0]
    watcher = threading.Thread(target=peak_rss_anon, args=(done, peak))
    watcher.start()
    if things is not None:
        seconds = (ours_meg if name == "ours" else mne_meg)(folder, things, out)
    else:
        seconds = ours(folder, out) if name == "ours" else continuous(folder, out, epochs=name == "epochs")
    done.set()
    watcher.join()
    print(json.dumps({"seconds": seconds, "peak_mb": peak[0]}))


def measured(name: str, folder: Path, out: Path, things: Path | None) -> dict[str, float]:
    """Run one of the three in a new process."""
    command = [sys.executable, __file__, "--worker", name, "--folder", str(folder), "--out", str(out)]
    command += ["--things", str(things)] if things else []
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(text.strip().splitlines()[-1])
    return result


def race(names: list[str], study: Path, scratch: str, pairs: int, things: Path | None) -> dict[str, float]:
    """Interleaved rounds; prints seconds, ratios and memory, returns median seconds."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for k in range(pairs):
        for name in names:
            with tempfile.TemporaryDirectory(dir=scratch) as out:
                results[name].append(measured(name, study, Path(out), things))
        print(f"round {k + 1}: " + "  ".join(f"{n} {r[-1]['seconds']:.1f} s" for n, r in results.items()))
    medians = {name: statistics.median(r["seconds"] for r in runs) for name, runs in results.items()}
    for name, seconds in medians.items():
        peak = max(run["peak_mb"] for run in results[name])
        ratio = "" if name == "ours" else f"   ours is {seconds / medians['ours']:.1f} x faster"
        print(f"{name:11s} median {seconds:6.1f} s   peak anonymous memory {peak:6.0f} MB{ratio}")
    return medians


def compare(store: Path, fif: Path) -> None:
    """Slope, lag and largest relative error a channel, over the whole recording, ends included."""
    import mne

    from synapse_diffusion.store.files import open_store

    opened = open_store(store)
    a = np.asarray(opened.signal_TC, dtype=np.float64)
    b = mne.io.read_raw_fif(fif, preload=True, verbose="error").get_data(list(opened.sensors.names)).T
    slope = (a * b).sum(0) / (b * b).sum(0)
    error = np.abs(a - b).max(0) / np.abs(b).max(0)
    lags = [float(np.corrcoef(a[5 + k : 20_005 + k, 0], b[5:20_005, 0])[0, 1]) for k in range(-3, 4)]
    print(f"slope - 1: {np.abs(slope - 1).max():.1e}   best lag: {int(np.argmax(lags)) - 3} samples   ", end="")
    print(f"largest relative error of any channel: {error.max():.1e} (median channel {np.median(error):.1e})")


def cutting(store: Path) -> None:
    """Epochs a second from the store on one core."""
    import torch

    from synapse_diffusion.store.epochs import Epochs
    from synapse_diffusion.store.files import open_store

    torch.set_num_threads(1)
    epochs = Epochs([open_store(store)], 0.0, 1.0)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(epochs.trials["usable"]))
    start = time.perf_counter()
    for k in range(0, len(rows) - 256, 256):
        epochs.read(rows[k : k + 256])
    rate = (len(rows) - 256) / (time.perf_counter() - start)
    print(
        f"cutting {epochs.n_times}-sample epochs of {len(epochs.channels)} channels: {rate:,.0f} a second on one core"
    )


def main() -> None:
    """Make the file, run all, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=3_227_280 / 60_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--meg", type=Path, help="BIDS data set in the form of ds004212")
    parser.add_argument("--things", type=Path, help="folder with things_images.csv")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return worker(given.worker, given.folder, given.out, given.things)
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        agreement = Path(scratch) / "agreement"
        agreement.mkdir()
        if given.meg:
            medians = race(["ours", "continuous"], given.meg, scratch, given.pairs, given.things)
            print(f"480 runs, one after the other: {480 * medians['ours'] / 3600:.2f} h")
            ours_meg(given.meg, given.things, agreement)
            mne_meg(given.meg, given.things, agreement)
            compare(next(agreement.glob("ds004212/*/*/*")), agreement / "x_raw.fif")
            return None
        study = Path(scratch) / "study"
        make_study(study, round(given.minutes * 60) * SFREQ // 20 * 20)
        race(["ours", "continuous", "epochs"], study, scratch, given.pairs, None)
        ours(study, agreement)
        continuous(study, agreement)
        store = agreement / "study/sub-01/ses-01/run-rsvp-01"
        compare(store, agreement / "x_raw.fif")
        cutting(store)
    return None


if __name__ == "__main__":
    main()
