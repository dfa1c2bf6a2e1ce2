"""Epochs that others cut (those of THINGS-MEG and THINGS-EEG2) -> a signal store: end to end, with boundaries."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.bids import ImageTable, OpenEpochs, Recording, open_eeg2_epochs, read_images
from synapse_diffusion.config import Recipe
from synapse_diffusion.convert.recording import Converted, about, things_folder
from synapse_diffusion.errors import DataError
from synapse_diffusion.store.files import draft_store
from synapse_diffusion.types import NOT_AVAILABLE, TRIAL_COLUMNS, Segment, SensorArray

CATCH: Final = 999999  # the authors' image number of catch trials
CHUNK: Final = 64  # epochs a read: 40 MB of 271 sensors x 281 samples
LARGEST_FIELD_T: Final = 1e-6  # numbers beyond this are no tesla: the derivative is in standard deviations
SESSIONS: Final = ("session_nr", "session")
RUNS: Final = ("run_nr", "run")
IMAGES: Final = ("things_image_nr", "image_nr")


def convert_epochs(recording: Recording, recipe: Recipe, target: Path) -> Converted:
    """Store the epochs of a file as they are, a few at a time.

    FIF (and its split parts): image numbers come from the file's metadata (`things_image_nr`) or its event ids;
    sessions and runs from the metadata, where it has them; test and catch trials too (`trial_type`), else a test
    image is one that is shown more than once and a catch trial has the image number 999999. THINGS-EEG2's numpy
    files: `bids.eeg2`. Raises `DataError`.
    """
    drop_channels = recipe.convert.drop_channels
    if recording.is_eeg2:
        return _store(open_eeg2_epochs(recording, drop_channels), recording, recipe, target)
    epochs = _open(recording.path)
    try:
        sensors, picks = _sensors(epochs, drop_channels, recording.path)
        opened = OpenEpochs(
            sfreq=float(epochs.info["sfreq"]),
            times=epochs.times,
            sensors=sensors,
            trials=_trials(epochs, recording, read_images(things_folder(recipe))),
            read=partial(_read, epochs, picks),
        )
        return _store(opened, recording, recipe, target)
    finally:
        for part in epochs._raw:  # MNE leaves the files to the garbage collector
            part.fid.close()


def _store(opened: OpenEpochs, recording: Recording, recipe: Recipe, target: Path) -> Converted:
    path, settings, sfreq, sensors = recording.path, recipe.convert, opened.sfreq, opened.sensors
    if abs(sfreq - settings.sfreq) > 1e-6:
        raise DataError(
            f"{path}: epochs at {sfreq:g} Hz are stored as they are; set convert.sfreq = {sfreq:g} (it is "
            f"{settings.sfreq:g})"
        )
    catch = opened.trials["is_catch"].to_numpy() == 1
    keep = np.flatnonzero(~catch if not recipe.data.events.keep_catch else np.ones(len(catch), bool))
    if not keep.size:
        raise DataError(f"{path}: no epoch but catch trials; set data.events.keep_catch to store those")
    n_times, window = len(opened.times), f"{opened.times[0]:g}..{opened.times[-1]:g} s"
    zero = round(-opened.times[0] * sfreq)
    if not 0 <= zero < n_times:
        raise DataError(f"{path}: its epochs ({window}) do not hold the onset at 0 s")
    folder = target / recording.folder
    trials = opened.trials.iloc[keep].assign(onset_sample=np.arange(keep.size) * n_times + zero)
    trials = trials.assign(repeat=trials.groupby("image_id").cumcount())
    with draft_store(folder) as draft:
        signal_TC = draft.signal(keep.size * n_times, len(sensors.names))
        largest = 0.0
        for k in range(0, keep.size, CHUNK):
            x_NTC = opened.read(keep[k : k + CHUNK])
            signal_TC[k * n_times : (k + len(x_NTC)) * n_times] = x_NTC.reshape(-1, len(sensors.names))
            largest = max(largest, float(np.abs(x_NTC).max()))
        notes = [f"{keep.size} epochs of {window}, filtered and cut by others", *opened.notes]
        if recording.modality == "meg" and largest > LARGEST_FIELD_T:
            sensors = replace(sensors, units=(NOT_AVAILABLE,) * len(sensors.units))
            notes.append(f"values up to {largest:.3g} are no tesla: the unit is stored as {NOT_AVAILABLE}")
        counts = {
            "rows": len(catch),
            "stored": int(keep.size),
            "test": int(trials["is_test"].sum()),
            "left_out": {"catch": int(len(catch) - keep.size)},
        }
        boundaries = [Segment(k * n_times, k * n_times, "boundary") for k in range(1, keep.size)]
        draft.finish(sfreq, sensors, trials, boundaries, {**about(recording, recipe), "counts": counts, "notes": notes})
    return Converted(recording, folder, keep.size, tuple(notes))


def _open(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mne.read_epochs(path, proj=False, preload=False, verbose="error")
    except Exception as error:  # readers raise anything on damaged files
        raise DataError(
            f"{path}: it or one of its parts cannot be read as epochs ({_one_line(error)}); download them again"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _read(epochs: Any, picks: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Epochs (N, T, C)."""
    try:
        x_NCT = epochs[rows].get_data(picks=picks, verbose="error")
    except (ValueError, OSError, TypeError) as error:
        raise DataError(
            f"{epochs.filename}: epochs {rows[0] + 1} to {rows[-1] + 1} cannot be read ({_one_line(error)}): it or one "
            "of its parts is cut short; download them again"
        ) from None
    return np.ascontiguousarray(x_NCT.transpose(0, 2, 1), dtype=np.float32)


def _sensors(epochs: Any, drop_channels: tuple[str, ...], path: Path) -> tuple[SensorArray, NDArray[np.int64]]:
    picks = mne.pick_types(epochs.info, meg=True, eeg=False, ref_meg=False, exclude=[])
    names = [name.split("-")[0] for name in epochs.ch_names]
    dropped = {name.split("-")[0] for name in drop_channels}
    picks = np.asarray([k for k in picks if names[k] not in dropped], dtype=np.int64)
    if not picks.size:
        raise DataError(f"{path}: no MEG channel among {', '.join(epochs.ch_names[:8])}...")
    kinds = tuple(epochs.get_channel_types(picks))
    position_C3 = np.array([epochs.info["chs"][k]["loc"][:3] for k in picks], dtype=float)
    position_C3[~np.any(position_C3, axis=1)] = np.nan
    if epochs.info["dev_head_t"] is not None:
        position_C3 = mne.transforms.apply_trans(epochs.info["dev_head_t"], position_C3)
    units = tuple({"mag": "T", "grad": "T/m"}[kind] for kind in kinds)
    bads = set(epochs.info["bads"])
    status = tuple("bad" if epochs.ch_names[k] in bads else "good" for k in picks)
    return SensorArray(tuple(names[k] for k in picks), kinds, units, position_C3, status), picks


def _trials(epochs: Any, recording: Recording, images: ImageTable) -> pd.DataFrame:
    """One row an epoch, in the file's order."""
    path, n = recording.path, len(epochs)
    metadata = epochs.metadata
    number = _column(metadata, IMAGES)
    if number is None:
        of_code = {code: name for name, code in epochs.event_id.items()}
        number = pd.Series([of_code.get(code, code) for code in epochs.events[:, 2]])
    value = pd.to_numeric(number, errors="coerce").to_numpy(dtype=float)
    kind = _column(metadata, ("trial_type",))
    is_catch = (value == CATCH) | (number.astype(str) == "catch").to_numpy()
    if kind is not None:
        is_catch |= (kind == "catch").to_numpy()
    wrong = np.flatnonzero(~is_catch & ~((value >= 1) & (value <= len(images.images)) & (value == np.rint(value))))
    if wrong.size:
        k = int(wrong[0])
        raise DataError(
            f"{path}: epoch {k + 1}: image number {number.iloc[k]} is none of {images.path.name} "
            f"(1..{len(images.images)}); {wrong.size} epochs are"
        )
    at = np.where(is_catch, 1, value).astype(np.int64) - 1
    image = np.where(is_catch, NOT_AVAILABLE, np.asarray(images.images)[at])
    concept = np.where(is_catch, NOT_AVAILABLE, np.asarray(images.concepts)[at])
    shown = pd.Series(image).map(pd.Series(image).value_counts()).to_numpy()
    is_test = (shown > 1) & ~is_catch if kind is None else (kind == "test").to_numpy()
    session, run = _column(metadata, SESSIONS), _column(metadata, RUNS)
    table = pd.DataFrame(
        {
            "trial_id": [
                f"sub-{recording.person}_ses-{recording.session}_run-{recording.run}_{k:06d}" for k in range(n)
            ],
            "image_id": image,
            "concept": concept,
            "person": recording.person,
            "session": recording.session if session is None else session.map(_two_digits).to_numpy(),
            "run": recording.run if run is None else run.map(lambda k: f"main-{_two_digits(k)}").to_numpy(),
            "sequence": 0,
            "repeat": 0,
            "onset_sample": 0,
            "duration_s": 0.5,
            "is_test": is_test.astype(int),
            "is_target": 0,
            "is_catch": is_catch.astype(int),
            "label": NOT_AVAILABLE,
        }
    )
    return table[list(TRIAL_COLUMNS)]


def _column(metadata: pd.DataFrame | None, names: tuple[str, ...]) -> pd.Series[Any] | None:
    found = [name for name in names if metadata is not None and name in metadata]
    return metadata[found[0]].reset_index(drop=True) if metadata is not None and found else None


def _two_digits(value: object) -> str:
    """BIDS's `01` for the authors' 1."""
    try:
        return f"{int(float(str(value))):02d}"
    except ValueError:
        return str(value)
