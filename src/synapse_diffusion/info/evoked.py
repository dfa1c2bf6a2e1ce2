"""The evoked response of stores, one panel a person and kind of sensor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.config import ViewSettings
from synapse_diffusion.errors import MissingError, StoreError, SynapseError
from synapse_diffusion.figures.sensors import Evoked, draw_evoked
from synapse_diffusion.info.values import some
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import SignalStore, open_store
from synapse_diffusion.types import Progress

MAX_TRIALS: Final = 3000  # a person; more change no mean visibly
MAX_PANELS: Final = 6
CHUNK_BYTES: Final = 32 * 2**20


def plot_evoked(path: Path, folders: Sequence[Path], view: ViewSettings, picture: Path, progress: Progress) -> None:
    """Draw the mean over usable trials (no targets, no catch trials) of the first people, bad channels left out.

    Raises `StoreError` where no trial is usable, `MissingError` where the picture cannot be written.
    """
    people = [list(mine) for _, mine in groupby(folders, key=lambda folder: folder.absolute().parent.parent)]
    datasets = sorted({folder.absolute().parent.parent.parent.name for folder in folders})
    panels: list[Evoked] = []
    n_people = 0
    for mine in people:
        stores = [store for store in map(_readable, mine) if store is not None]
        found = _panels(stores, view, progress) if stores else []
        if panels and len(panels) + len(found) > MAX_PANELS:
            break
        panels += found
        n_people += 1
    if not panels:
        raise StoreError(
            f"{path}: no trial is usable from {view.start_s:g} to {view.stop_s:g} s; choose a shorter window by "
            "--set view.start_s and view.stop_s"
        )
    shown = f"; the first {n_people} of {len(people)} people" if n_people < len(people) else ""
    try:
        draw_evoked(panels, f"evoked response, {', '.join(datasets)}{shown}", picture)
    except OSError as error:
        raise MissingError(f"{picture}: cannot be written: {error.strerror}; give another --plot") from None


def _readable(folder: Path) -> SignalStore | None:
    try:
        store = open_store(folder, verify_signal=False)
    except SynapseError:
        return None  # told under health
    return store if len(store.trials) else None


def _panels(stores: Sequence[SignalStore], view: ViewSettings, progress: Progress) -> list[Evoked]:
    epochs = Epochs(stores, view.start_s, view.stop_s, view.baseline, view.channels)
    trials = epochs.trials
    person = str(trials["person"].iloc[0])
    rows = np.flatnonzero(trials["usable"] & (trials["is_target"] == 0) & (trials["is_catch"] == 0))
    if not len(rows):
        return []
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_TRIALS)).round().astype(np.int64)]
    mean_CT = _mean(epochs, chosen, f"averaging sub-{person}", progress)
    sensors = stores[0].sensors
    at = {name: sensors.names.index(name) for name in epochs.channels}
    bad = {
        name for s in stores for name, status in zip(s.sensors.names, s.sensors.status, strict=True) if status == "bad"
    }
    n_trials = f"{len(chosen):,} trials" if len(chosen) == len(rows) else f"{len(chosen):,} of {len(rows):,} trials"
    panels = []
    for kind in dict.fromkeys(sensors.kinds[k] for k in at.values()):
        mine = [name for name in epochs.channels if sensors.kinds[at[name]] == kind]
        good = [name for name in mine if name not in bad] or mine
        left_out = f", bad and left out: {some(bad & set(mine))}" if len(good) < len(mine) else ""
        called = "EEG" if kind == "eeg" else kind
        panels.append(
            Evoked(
                caption=f"sub-{person}: mean of {n_trials}, {len(good)} {called} sensors{left_out}",
                unit=sensors.units[at[good[0]]],
                times_s=epochs.times,
                mean_CT=mean_CT[[epochs.channels.index(name) for name in good]],
                position_C3=sensors.position_C3[[at[name] for name in good]],
            )
        )
    return panels


def _mean(epochs: Epochs, rows: NDArray[np.int64], what: str, progress: Progress) -> NDArray[np.float64]:
    step = max(1, CHUNK_BYTES // (4 * len(epochs.channels) * epochs.n_times))
    total_CT = np.zeros((len(epochs.channels), epochs.n_times))
    for k in range(0, len(rows), step):
        progress(what, k, len(rows))
        total_CT += epochs.read(rows[k : k + step]).double().sum(0).numpy()
    progress(what, len(rows), len(rows))
    return total_CT / len(rows)
