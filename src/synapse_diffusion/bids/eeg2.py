"""THINGS-EEG2 (Gifford et al. 2022, https://osf.io/3jk45): numpy files instead of BIDS.

sub-01/ses-01/raw_eeg_training.npy, raw_eeg_test.npy        continuous, with a channel of image numbers
sub-01/preprocessed_eeg_training.npy, ..._test.npy          epochs that the authors cut and whitened
image_metadata.npy                                          the image that each number means
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.bids.events import TrialTable, table_of
from synapse_diffusion.bids.pickled import read_dict
from synapse_diffusion.bids.reading import READ_UNITS, OpenEpochs, OpenRecording, standard_positions, with_reference
from synapse_diffusion.bids.recordings import Recording, chosen, data_folder_of
from synapse_diffusion.config import DataSettings, EventColumns
from synapse_diffusion.errors import DataError
from synapse_diffusion.types import NOT_AVAILABLE, TRIAL_COLUMNS, SensorArray

METADATA: Final = "image_metadata.npy"
PARTS: Final = {"training": "train", "test": "test"}  # the authors' word in the name of a file, and in its metadata
TASK: Final = "rsvp"
TARGET: Final = 99999  # the code of the pictures that people were to find
SHOWN_S: Final = 0.1
PAUSE: Final = 2.0  # median distances from one onset to the next: from here on a new sequence begins
REFERENCE: Final = "Fz"  # of the 64 electrodes the one that is not in the files
RAW_KEYS: Final = ("raw_eeg_data", "ch_names", "ch_types", "sfreq")
EPOCH_KEYS: Final = ("preprocessed_eeg_data", "ch_names", "times")


@dataclass(frozen=True)
class _Images:
    """The images of one part; code n is row n - 1."""

    images: NDArray[np.str_]
    concepts: NDArray[np.str_]
    """THINGS' uniqueID, without the authors' number before it."""


def find_eeg2(root: Path, things: Path, settings: DataSettings) -> list[Recording]:
    """The files that the settings choose, sorted by person, session and run (`training`, `test`).

    `things` is where `image_metadata.npy` may lie, beside the data's own folder. Epochs are of session `all`. Raises
    `DataError` where there are no files, files of both kinds, no metadata, or not who is named.
    """
    base = data_folder_of(root, settings)
    raw = [path for part in PARTS for path in base.rglob(f"sub-*/ses-*/raw_eeg_{part}.npy")]
    epochs = [path for part in PARTS for path in base.rglob(f"sub-*/preprocessed_eeg_{part}.npy")]
    if not raw and not epochs:
        raise DataError(
            f"{base}: no THINGS-EEG2 file in it (sub-*/ses-*/raw_eeg_training.npy or sub-*/preprocessed_eeg_training."
            "npy); set paths.bids and data.folder"
        )
    if raw and epochs:
        raise DataError(
            f"{base}: holds raw recordings ({raw[0].relative_to(base)}) and epochs ({epochs[0].relative_to(base)}); "
            "name the folder of one kind by data.folder"
        )
    places = (base, root, things)
    metadata = next((place / METADATA for place in places if (place / METADATA).is_file()), None)
    if metadata is None:
        raise DataError(
            f"{base / METADATA}: not there, nor in {root} or {things}; put THINGS-EEG2's list of images there (OSF, "
            "image set), or name its folder by paths.things"
        )
    recordings = [_recording(path, metadata) for path in raw or epochs]
    recordings.sort(key=lambda recording: (recording.person, recording.session, recording.run))
    return chosen(recordings, base, settings)


def open_eeg2(
    recording: Recording, drop_channels: tuple[str, ...] = (), *, restore_reference: bool = False
) -> OpenRecording:
    """Open a `raw_eeg_*.npy` without loading its signal (1.8 GB an hour), which is memory-mapped.

    Positions are the 10-05 system's; `restore_reference` adds Fz as a channel of zeros. The authors joined the five
    parts of a training session without a mark. Raises `DataError` where the dict's entries are not there or do not
    fit each other.
    """
    found, path = read_dict(recording.path, RAW_KEYS), recording.path
    data_CT, names, _ = _raw(found, path)
    kinds = [str(kind) for kind in found["ch_types"]]
    columns = np.array([k for k, kind in enumerate(kinds) if kind == "eeg" and names[k] not in drop_channels], int)
    if not columns.size:
        raise DataError(f"{path}: no EEG channel among {', '.join(names[:8])}...")
    kept = [names[k] for k in columns]
    sfreq = float(found["sfreq"])
    info = mne.create_info(kept, sfreq, "eeg", verbose="error")

    def read(start: int, stop: int) -> NDArray[np.float32]:
        return np.ascontiguousarray((data_CT[:, start:stop][columns] / READ_UNITS["eeg"]).T, dtype=np.float32)

    opened = OpenRecording(
        raw=mne.io.RawArray(np.zeros((len(kept), 1)), info, verbose="error"),
        sensors=_sensors(kept, "V"),
        sfreq=sfreq,
        n_samples=data_CT.shape[1],
        segments=(),
        reference=REFERENCE,
        read=read,
        read_recorded=read,
        gain_C=np.full(len(kept), READ_UNITS["eeg"], np.float32),
        auxiliary={},
    )
    return with_reference(opened) if restore_reference else opened


def read_codes(recording: Recording, columns: EventColumns) -> TrialTable:
    """The trials of a `raw_eeg_*.npy`, from its stim channel: 1-based image numbers, 99999 for targets.

    Targets are catch trials: never decoded, stored with `keep_catch`. A new sequence begins after a pause of twice
    the median distance. Raises `DataError` naming the first code that means no image.
    """
    path = recording.path
    found = read_dict(path, RAW_KEYS)
    data_CT, _, stim = _raw(found, path)
    code_T = np.asarray(data_CT[stim])
    sample = np.flatnonzero((code_T != 0) & (code_T != np.concatenate([[0], code_T[:-1]])))
    if not sample.size:
        raise DataError(f"{path}: its stim channel holds no image number; download it again")
    images, code = _images(recording), code_T[sample]
    is_target = code == TARGET
    wrong = np.flatnonzero(~is_target & ~((code >= 1) & (code <= len(images.images)) & (code == np.rint(code))))
    if wrong.size:
        k = int(wrong[0])
        raise DataError(
            f"{path}: sample {sample[k]}: code {code[k]:g} is neither an image of {recording.events.name} "
            f"(1..{len(images.images)}) nor a target ({TARGET}); {wrong.size} codes are"
        )
    distance = np.diff(sample)
    pause = distance > PAUSE * np.median(distance) if distance.size else np.zeros(0, bool)
    trials = _trials(recording, images, np.where(is_target, 0, code).astype(np.int64)).assign(
        sequence=np.concatenate([[0], np.cumsum(pause)]).astype(np.int64), onset_sample=sample
    )
    kind = pd.Series(["target" if k else recording.run for k in is_target])
    return table_of(trials, kind, np.ones(len(trials), bool), float(found["sfreq"]), columns, path)


def open_eeg2_epochs(recording: Recording, drop_channels: tuple[str, ...] = ()) -> OpenEpochs:
    """Open a `preprocessed_eeg_*.npy` (images x repetitions x channels x samples), memory-mapped.

    Epochs run through the repetitions of the first image, then of the second. The authors whitened them (no volts) and
    shuffled repetitions over sessions, so sessions are unknown. Files of NICE's code, whose samples begin at the
    onset and whose times before it, are read as that code reads them. Raises `DataError` where the dict's entries do
    not fit each other or the images.
    """
    path = recording.path
    found = read_dict(path, EPOCH_KEYS)
    data_KRCT, names = found["preprocessed_eeg_data"], [str(name) for name in found["ch_names"]]
    times = np.asarray(found["times"], dtype=float)
    if not _is_signal(data_KRCT, 4):
        raise DataError(f"{path}: preprocessed_eeg_data is no array of images x repetitions x channels x samples")
    n_images, n_repeats, n_channels, n_times = data_KRCT.shape
    notes = ["whitened by the authors: the unit is unknown", "repetitions are shuffled over sessions"]
    if 1 < n_times < len(times) and abs(times[-n_times]) < 1e-6:
        notes.append(f"{len(times)} times for {n_times} samples: those before the onset were cut off")
        times = times[-n_times:]
    images = _images(recording)
    for what, theirs, ours in (
        ("ch_names", len(names), n_channels), ("times", times.size, n_times),
        (f"{recording.events.name} ({recording.run})", len(images.images), n_images),
    ):  # fmt: skip
        if theirs != ours:
            raise DataError(
                f"{path}: preprocessed_eeg_data is {' x '.join(map(str, data_KRCT.shape))}, but {what} has {theirs}, "
                f"not {ours}; take both files from one release"
            )
    if (
        n_times < 2
        or not np.allclose(np.diff(times), np.diff(times).mean(), rtol=1e-3, atol=0)
        or times[-1] <= times[0]
    ):
        raise DataError(f"{path}: its times do not grow by equal steps; download it again")
    columns = np.array([k for k, name in enumerate(names) if name not in drop_channels], int)
    if not columns.size:
        raise DataError(f"{path}: convert.drop_channels leaves none of {', '.join(names)}")
    trials = _trials(recording, images, np.repeat(np.arange(n_images) + 1, n_repeats))

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        x_NCT = data_KRCT[rows // n_repeats, rows % n_repeats][:, columns]
        return np.ascontiguousarray(x_NCT.transpose(0, 2, 1), dtype=np.float32)

    return OpenEpochs(
        sfreq=round((n_times - 1) / float(times[-1] - times[0]), 6),
        times=times,
        sensors=_sensors([names[k] for k in columns], NOT_AVAILABLE),
        trials=trials,
        read=read,
        notes=tuple(notes),
    )


def _recording(path: Path, metadata: Path) -> Recording:
    part = path.stem.rsplit("_", 1)[-1]
    folder = path.parent
    session = folder.name.removeprefix("ses-") if folder.name.startswith("ses-") else "all"
    person = (folder if session == "all" else folder.parent).name.removeprefix("sub-")
    return Recording(person, session, TASK, part, path, metadata)


def _raw(found: dict[str, Any], path: Path) -> tuple[NDArray[np.floating], list[str], int]:
    """(C, T) in V, the channels' names, and which one holds the codes."""
    data_CT, names, kinds, sfreq = (found[key] for key in RAW_KEYS)
    if not _is_signal(data_CT, 2):
        raise DataError(f"{path}: raw_eeg_data is no array of channels x samples")
    if not len(data_CT) == len(names) == len(kinds):
        raise DataError(
            f"{path}: raw_eeg_data has {len(data_CT)} channels, ch_names {len(names)}, ch_types {len(kinds)}; download "
            "it again"
        )
    if not isinstance(sfreq, int | float) or not 0 < sfreq < np.inf:
        raise DataError(f"{path}: sfreq is {sfreq!r}, no rate in Hz; download it again")
    stim = [k for k, kind in enumerate(kinds) if kind == "stim"]
    if len(stim) != 1:
        raise DataError(f"{path}: {len(stim)} channels of type stim in ch_types; one holds the image numbers")
    return data_CT, [str(name) for name in names], stim[0]


def _is_signal(value: object, n_axes: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim == n_axes and value.size > 0


def _images(recording: Recording) -> _Images:
    part = PARTS[recording.run]
    keys = (f"{part}_img_files", f"{part}_img_concepts")
    found = read_dict(recording.events, keys)
    files, concepts = ([str(name) for name in found[key]] for key in keys)
    if len(files) != len(concepts) or not files:
        raise DataError(
            f"{recording.events}: {keys[0]} has {len(files)} names, {keys[1]} {len(concepts)}; download it again"
        )
    return _Images(
        np.array([name.rsplit(".", 1)[0] for name in files]),
        np.array([re.sub(r"^[0-9]+_", "", name) for name in concepts]),  # 00001_aardvark
    )


def _trials(recording: Recording, images: _Images, number_N: NDArray[np.int64]) -> pd.DataFrame:
    """One row a shown picture; number 0 is a target. Onsets, sequences and repeats are still 0."""
    is_target = number_N == 0
    at = np.maximum(number_N - 1, 0)
    stem = f"sub-{recording.person}_ses-{recording.session}_run-{recording.run}"
    table = pd.DataFrame(
        {
            "trial_id": [f"{stem}_{row:06d}" for row in range(len(number_N))],
            "image_id": np.where(is_target, NOT_AVAILABLE, images.images[at]),
            "concept": np.where(is_target, NOT_AVAILABLE, images.concepts[at]),
            "person": recording.person,
            "session": recording.session,
            "run": recording.run,
            "sequence": 0,
            "repeat": 0,
            "onset_sample": 0,
            "duration_s": SHOWN_S,
            "is_test": np.where(is_target, 0, int(recording.run == "test")),
            "is_target": is_target.astype(int),
            "is_catch": is_target.astype(int),
            "label": NOT_AVAILABLE,
        }
    )
    return table[list(TRIAL_COLUMNS)]


def _sensors(names: list[str], unit: str) -> SensorArray:
    by_name = {name.lower(): position for name, position in standard_positions().items()}
    position_C3 = np.array([by_name.get(name.lower(), np.full(3, np.nan)) for name in names])
    n = len(names)
    return SensorArray(tuple(names), ("eeg",) * n, (unit,) * n, position_C3, ("good",) * n)
