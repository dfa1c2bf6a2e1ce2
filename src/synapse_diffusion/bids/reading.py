"""Opening a recording: the signal by blocks, its sensors, its marked bad stretches."""

from __future__ import annotations

import functools
import shutil
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.bids import brainvision, ctf
from synapse_diffusion.bids.recordings import Recording, read_json
from synapse_diffusion.errors import DataError
from synapse_diffusion.types import NOT_AVAILABLE, Segment, SensorArray

BOUNDARIES: Final = ("boundary", "edge", "bad_acq_skip", "bad boundary", "new segment")
SI_UNITS: Final = {"eeg": "V", "mag": "T", "grad": "T/m", "eog": "V", "ecg": "V", "emg": "V"}
READ_UNITS: Final = {"eeg": 1e-6, "mag": 1e-12, "grad": 1e-12, "eog": 1e-6, "ecg": 1e-6}
"""What MNE's values in SI units are divided by, so that float32 arithmetic is far from its limits."""
LOOKED_AT: Final = 40  # CTF sensors in which dropouts, which hit all, are looked for
CHECKS: Final = {".vhdr": brainvision.check_brainvision, ".ds": ctf.check_ctf}
ReadColumns = Callable[[int, int, NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True)
class OpenRecording:
    """A recording whose samples are read on demand."""

    raw: Any
    """MNE's view of the file, for what needs its sensor definitions."""
    sensors: SensorArray
    sfreq: float
    n_samples: int
    segments: tuple[Segment, ...]
    reference: str
    read: Callable[[int, int], NDArray[np.float32]]
    """`read(start, stop)` -> (T, C + A) float32: the sensors, then A auxiliary channels; times `gain_C` in SI units."""
    read_recorded: Callable[[int, int], NDArray[np.float32]]
    """Likewise (T, C), before gradient compensation: where the electronics dropped out, this stands still. Of CTF's
    integers, which are never NaN, only some sensors all over the helmet."""
    gain_C: NDArray[np.float32]
    auxiliary: dict[str, str]
    """Name -> kind (`eog`, `ecg`) of the channels beside the sensors, in order."""


@dataclass(frozen=True)
class OpenEpochs:
    """Epochs that others cut, read on demand."""

    sfreq: float
    times: NDArray[np.float64]
    """(T,), s from the onset."""
    sensors: SensorArray
    trials: pd.DataFrame
    """One row an epoch, catch trials included; `repeat` and `onset_sample` are for the store to fill."""
    read: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    """`read(rows)` -> (N, T, C) float32 in the sensors' units."""
    notes: tuple[str, ...] = ()


def open_recording(
    recording: Recording,
    *,
    restore_reference: bool = False,
    drop_channels: tuple[str, ...] = (),
    compensation: int | None = None,
    with_auxiliary: bool = False,
    only_channels: tuple[str, ...] = (),
) -> OpenRecording:
    """Open without loading the signal.

    `restore_reference`: add the EEG reference electrode as a channel of zeros. `drop_channels`: sensors to leave out.
    `compensation`: order of CTF's gradient compensation (0 to 3), None: as recorded. `with_auxiliary`: read EOG and ECG
    channels too. `only_channels`: these in place of the sensors; dropouts are still looked for in the sensors, so that
    the same trials can be used. Raises `DataError` for missing, truncated or mismatched files.
    """
    path = recording.path
    if check := CHECKS.get(path.suffix):
        check(path)
    raw = _read_raw(path)
    sidecar = read_json(recording.sidecar(f"{recording.modality}.json"))
    _check_duration(path, raw, sidecar)
    bad_names = _apply_channels_tsv(recording, raw)
    sensors = _sensor_columns(recording, raw, drop_channels)
    columns = _named_columns(path, raw, only_channels) if only_channels else sensors
    picked = mne.pick_types(raw.info, meg=False, eog=with_auxiliary, ecg=with_auxiliary, exclude=[])
    auxiliary = np.asarray(picked, dtype=np.int64)
    everything = np.concatenate([columns, auxiliary])
    read_columns, gain_of = _reader(path, raw)
    matrix, references = _compensation(path, raw, compensation, columns)
    gain = gain_of(everything)
    looked_at = sensors[:: max(1, len(sensors) // LOOKED_AT)] if path.suffix == ".ds" else sensors
    opened = OpenRecording(
        raw=raw,
        sensors=_sensors(raw, columns, bad_names, recording),
        sfreq=float(raw.info["sfreq"]),
        n_samples=int(raw.n_times),
        segments=_segments(raw, path),
        reference=str(sidecar.get("EEGReference", "n/a")),
        read=(lambda start, stop: read_columns(start, stop, everything))
        if matrix is None
        else _compensated(read_columns, everything, references, matrix, gain, gain_of(references)),
        read_recorded=lambda start, stop: read_columns(start, stop, looked_at),
        gain_C=gain.astype(np.float32),
        auxiliary={raw.ch_names[k]: raw.get_channel_types([k])[0] for k in auxiliary},
    )
    return with_reference(opened) if restore_reference and recording.modality == "eeg" else opened


@functools.cache
def standard_positions() -> dict[str, NDArray[np.float64]]:
    """Electrodes of the 10-05 system (Oostenveld & Praamstra 2001), positions in m."""
    name = "colin27_1005" if "colin27_1005" in mne.channels.get_builtin_montages() else "standard_1005"
    positions: dict[str, NDArray[np.float64]] = mne.channels.make_standard_montage(name).get_positions()["ch_pos"]
    return positions


def _read_raw(path: Path) -> Any:
    links = ctf.links_for_mne(path) if path.suffix == ".ds" else None
    options = {"clean_names": True} if path.suffix == ".ds" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raw = mne.io.read_raw(links or path, preload=False, verbose="error", **options)
    except Exception as error:  # readers raise anything from KeyError to struct.error on damaged files
        if links:
            shutil.rmtree(links)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read ({reason}): damaged or cut short; download it again") from None
    if links:
        weakref.finalize(raw, shutil.rmtree, links, ignore_errors=True)
    return raw


def _sensor_columns(recording: Recording, raw: Any, drop_channels: tuple[str, ...]) -> NDArray[np.int64]:
    """The sensors of this modality by the recording's own header (ds004212's channels.tsv calls them OTHER)."""
    path, meg = recording.path, recording.modality == "meg"
    columns = np.asarray(mne.pick_types(raw.info, meg=meg, eeg=not meg, ref_meg=False, exclude=[]), dtype=np.int64)
    dropped = {ctf.clean_name(name) if path.suffix == ".ds" else name for name in drop_channels}
    kept = [k for k in columns if raw.ch_names[k] not in dropped]
    if not kept:
        raise DataError(f"{path}: no {recording.modality.upper()} channel among {', '.join(raw.ch_names[:8])}...")
    return np.asarray(kept, dtype=np.int64)


def _named_columns(path: Path, raw: Any, names: tuple[str, ...]) -> NDArray[np.int64]:
    """Channels by name. Raises `DataError` for one that is not there."""
    clean = [ctf.clean_name(name) if path.suffix == ".ds" else name for name in names]
    if missing := [name for name in clean if name not in raw.ch_names]:
        raise DataError(
            f"{path}: no channel {', '.join(missing)} (convert.only_channels); it has {', '.join(raw.ch_names)}"
        )
    return np.array([raw.ch_names.index(name) for name in clean], dtype=np.int64)


def _reader(path: Path, raw: Any) -> tuple[ReadColumns, Callable[[NDArray[np.int64]], NDArray[np.float64]]]:
    """How to read some columns, and what their values count in SI units.

    The file itself, memory-mapped (BrainVision where that is MNE's own reading to the bit; CTF), else through MNE.
    """
    if path.suffix == ".vhdr" and (samples_TC := brainvision.mapped(path, raw)) is not None:
        mapped = samples_TC

        def read_mapped(start: int, stop: int, columns: NDArray[np.int64]) -> NDArray[np.float32]:
            block = mapped[start:stop]
            whole = len(columns) == block.shape[1] and bool(np.all(np.diff(columns) == 1))
            return np.ascontiguousarray(block if whole else block[:, columns], dtype=np.float32)

        return read_mapped, lambda columns: np.asarray(raw._cals[columns], dtype=np.float64)
    if path.suffix == ".ds":
        return ctf.ctf_reader(ctf.check_ctf(path)), lambda columns: np.asarray(raw._cals[columns], dtype=np.float64)
    kinds = raw.get_channel_types()
    unit = np.array([READ_UNITS.get(kind, 1.0) for kind in kinds])

    def read_mne(start: int, stop: int, columns: NDArray[np.int64]) -> NDArray[np.float32]:
        values: NDArray[np.float64] = raw.get_data(picks=columns, start=start, stop=stop, verbose="error")
        return np.ascontiguousarray((values / unit[columns, None]).T, dtype=np.float32)

    return read_mne, lambda columns: unit[columns]


def _compensation(
    path: Path, raw: Any, order: int | None, columns: NDArray[np.int64]
) -> tuple[NDArray[np.float64] | None, NDArray[np.int64]]:
    """What to take off the sensors: (C, R) weights of the R reference channels, in SI units, and their columns."""
    references = np.asarray(mne.pick_types(raw.info, meg=False, ref_meg=True, exclude=[]), dtype=np.int64)
    recorded = raw.compensation_grade if path.suffix == ".ds" else None
    if order is None or order == recorded:
        return None, references
    if recorded is None:
        raise DataError(
            f"{path}: has no gradient compensation (it is no CTF recording); leave convert.compensation unset"
        )
    unit = mne.io.RawArray(np.eye(len(raw.ch_names)), raw.info, verbose="error")
    try:
        unit.apply_gradient_compensation(order, verbose="error")
    except ValueError as error:
        raise DataError(f"{path}: convert.compensation = {order}: {' '.join(str(error).split())}") from None
    matrix = unit.get_data()
    return np.asarray(-matrix[np.ix_(columns, references)]), references


def _compensated(
    read_columns: ReadColumns,
    columns: NDArray[np.int64],
    references: NDArray[np.int64],
    matrix_CR: NDArray[np.float64],
    gain: NDArray[np.float64],
    gain_R: NDArray[np.float64],
) -> Callable[[int, int], NDArray[np.float32]]:
    n = len(matrix_CR)
    weights = (matrix_CR * gain_R / gain[:n, None]).T
    both = np.concatenate([columns, references])

    def read(start: int, stop: int) -> NDArray[np.float32]:
        x_TC = read_columns(start, stop, both)
        # the references are thousands of times larger than what is left: in double precision
        x_TC[:, :n] -= x_TC[:, len(columns) :].astype(np.float64) @ weights
        return np.ascontiguousarray(x_TC[:, : len(columns)])

    return read


def with_reference(opened: OpenRecording) -> OpenRecording:
    """The same recording with its reference electrode, if that is one of the 10-05 system, after the sensors."""
    sensors, n = opened.sensors, len(opened.sensors.names)
    standard = standard_positions()
    name = next((name for name in standard if name.lower() == opened.reference.lower()), None)
    if name is None or name in sensors.names:
        return opened

    def widened(read: Callable[[int, int], NDArray[np.float32]]) -> Callable[[int, int], NDArray[np.float32]]:
        return lambda start, stop: np.insert(read(start, stop), n, 0.0, axis=1)

    return replace(
        opened,
        sensors=SensorArray(
            (*sensors.names, name),
            (*sensors.kinds, "eeg"),
            (*sensors.units, "V"),
            np.vstack([sensors.position_C3, standard[name]]),
            (*sensors.status, "reference"),
        ),
        read=widened(opened.read),
        read_recorded=widened(opened.read_recorded),
        gain_C=np.insert(opened.gain_C, n, np.float32(1e-6)),
    )


def _check_duration(path: Path, raw: Any, sidecar: Any) -> None:
    """A file that ends before its sidecar or its own markers say was cut short."""
    expected, found = sidecar.get("RecordingDuration"), raw.n_times / raw.info["sfreq"]
    if isinstance(expected, int | float) and found < expected - 1.0:
        raise DataError(
            f"{path}: truncated: it holds {found:.3f} s, its sidecar says RecordingDuration {expected:g} s; "
            "download it again"
        )


def _apply_channels_tsv(recording: Recording, raw: Any) -> tuple[str, ...]:
    """Channel types and bad channels of channels.tsv; returns the names marked bad."""
    path = recording.sidecar("channels.tsv")
    is_ctf = recording.path.suffix == ".ds"
    marked = [*raw.info["bads"], *(ctf.bad_channels(recording.path) if is_ctf else ())]
    if path.exists():
        table = _sidecar_table(path, ("name", "type"))
        if is_ctf:
            table["name"] = table["name"].map(ctf.clean_name)
        kinds = {
            "EEG": "eeg",
            "EOG": "eog",
            "VEOG": "eog",
            "HEOG": "eog",
            "ECG": "ecg",
            "EMG": "emg",
            "TRIG": "stim",
        }
        types = {
            name: kinds.get(kind.upper(), "misc")
            for name, kind in zip(table["name"], table["type"], strict=True)
            if name in raw.ch_names
        }
        if recording.modality == "meg":  # the header knows its sensors, the table what is plugged into the others
            types = {name: kind for name, kind in types.items() if kind in ("eog", "ecg", "emg")}
        if types and (recording.modality == "meg" or "eeg" in types.values()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a changed unit is only a changed label here
                raw.set_channel_types(types, verbose="error")
        if "status" in table:
            marked += list(table.loc[table["status"].str.lower() == "bad", "name"])
    return tuple(dict.fromkeys(name for name in marked if name in raw.ch_names))


def _sidecar_table(path: Path, needed: tuple[str, ...]) -> pd.DataFrame:
    """A BIDS sidecar table as text. Raises `DataError` where it is no table or lacks a column."""
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a tab-separated table: {str(error).splitlines()[0]}") from None
    if missing := [name for name in needed if name not in table]:
        raise DataError(f"{path}: no column {', '.join(missing)}; it has {', '.join(table.columns)}")
    return table


def _sensors(raw: Any, columns: NDArray[np.int64], bad: tuple[str, ...], recording: Recording) -> SensorArray:
    """Names, status and positions: the recording's own, else electrodes.tsv, else standard 10-05."""
    names = tuple(raw.ch_names[k] for k in columns)
    kinds = tuple(raw.get_channel_types(columns))
    position_C3 = np.array([raw.info["chs"][k]["loc"][:3] for k in columns], dtype=float)
    position_C3[~np.any(position_C3, axis=1)] = np.nan
    if recording.modality == "meg" and raw.info["dev_head_t"] is not None:
        position_C3 = mne.transforms.apply_trans(raw.info["dev_head_t"], position_C3)
    elif recording.modality == "eeg" and not np.isfinite(position_C3).any():
        position_C3 = _positions(names, recording)
    status = tuple("bad" if name in bad else "good" for name in names)
    return SensorArray(names, kinds, tuple(SI_UNITS.get(kind, NOT_AVAILABLE) for kind in kinds), position_C3, status)


def _positions(names: tuple[str, ...], recording: Recording) -> NDArray[np.float64]:
    path = recording.sidecar("electrodes.tsv")
    if path.exists():
        table = _sidecar_table(path, ("name", "x", "y", "z")).drop_duplicates("name").set_index("name")
        xyz = table.reindex(list(names))[["x", "y", "z"]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
        largest = np.nanmax(np.abs(xyz)) if np.isfinite(xyz).any() else np.nan
        return np.asarray(xyz / (1000.0 if largest > 10 else 100.0 if largest > 1 else 1.0))  # mm, cm or m
    by_name = {name.lower(): position for name, position in standard_positions().items()}
    return np.array([by_name.get(name.lower(), np.full(3, np.nan)) for name in names])


def _segments(raw: Any, path: Path) -> tuple[Segment, ...]:
    """BAD annotations as bad stretches; boundaries of concatenated or cut recordings as boundaries."""
    gaps = ctf.gaps(ctf.check_ctf(path), raw) if path.suffix == ".ds" else []
    found = [Segment(start, start, "boundary") for start in gaps]
    sfreq, n_samples = raw.info["sfreq"], raw.n_times
    for note in raw.annotations:
        text = note["description"].strip().lower()
        start = round((note["onset"] - raw.first_time) * sfreq)
        stop = min(start + round(note["duration"] * sfreq), n_samples)
        if text.startswith(BOUNDARIES):
            if 0 < start < n_samples:
                found.append(Segment(start, start, "boundary"))
            if stop > start:
                found.append(Segment(max(start, 0), stop, "bad"))
        elif text.startswith("bad") and stop > max(start, 0):
            found.append(Segment(max(start, 0), stop, "bad"))
    return tuple(found)
