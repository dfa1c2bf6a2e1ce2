"""Opening a recording: the signal by blocks, its sensors, its marked bad stretches."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.bids.recordings import Recording, read_json
from synapse_diffusion.errors import DataError
from synapse_diffusion.types import Segment, SensorArray

BRAINVISION_TYPES: Final = {"single": "<f4", "short": "<i2", "int": "<i4"}
BOUNDARIES: Final = ("boundary", "edge", "bad_acq_skip", "bad boundary", "new segment")


@dataclass(frozen=True)
class OpenRecording:
    """A recording whose samples are read on demand; signal in V."""

    raw: Any
    columns: NDArray[np.int64]
    sensors: SensorArray
    sfreq: float
    n_samples: int
    segments: tuple[Segment, ...]
    reference: str
    mapped: NDArray[Any] | None
    """The data file itself, memory-mapped, (T, all channels), where its layout allows."""
    gain_C: NDArray[np.float32]
    """Unit of `read`'s values, in V."""

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples [start, stop) of the chosen channels, (T, C) float32; times `gain_C` they are in V."""
        n_read, n_sensors = len(self.columns), len(self.sensors.names)
        if self.mapped is not None:
            block = self.mapped[start:stop]
            values = np.asarray(block if n_read == block.shape[1] else block[:, self.columns], np.float32)
        else:
            volts: NDArray[np.float64] = self.raw.get_data(picks=self.columns, start=start, stop=stop)
            values = (volts.T / self.gain_C[:n_read]).astype(np.float32)
        if n_sensors > n_read:  # the restored reference electrode: zero by definition
            values = np.pad(values, ((0, 0), (0, n_sensors - n_read)))
        return np.ascontiguousarray(values)


def open_recording(recording: Recording, *, restore_reference: bool = False) -> OpenRecording:
    """Open without loading the signal. Raises `DataError` for missing, truncated or mismatched files."""
    path = recording.path
    if path.suffix == ".vhdr":
        _check_brainvision(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raw = mne.io.read_raw(path, preload=False, verbose="error")
    except Exception as error:  # readers raise anything from KeyError to struct.error on damaged files
        raise DataError(f"{path}: cannot be read: {_one_line(error)}") from None
    sidecar = read_json(path.with_name(path.name.rsplit("_", 1)[0] + "_eeg.json"))
    _check_duration(path, raw, sidecar)
    bad_names = _apply_channels_tsv(recording, raw)
    columns = np.asarray(mne.pick_types(raw.info, eeg=True, exclude=[]), dtype=np.int64)
    if columns.size == 0:
        raise DataError(f"{path}: no EEG channel among {', '.join(raw.ch_names[:8])}...")
    mapped = _mapped(path, raw)
    cals = np.asarray(raw._cals, dtype=np.float64)[columns] if mapped is not None else np.full(columns.size, 1e-6)
    opened = OpenRecording(
        raw=raw,
        columns=columns,
        sensors=_sensors(raw, columns, bad_names, recording),
        sfreq=float(raw.info["sfreq"]),
        n_samples=int(raw.n_times),
        segments=_segments(raw),
        reference=str(sidecar.get("EEGReference", "n/a")),
        mapped=mapped,
        gain_C=cals.astype(np.float32),
    )
    return _with_reference(opened) if restore_reference else opened


@functools.cache
def standard_positions() -> dict[str, NDArray[np.float64]]:
    """Electrodes of the 10-05 system (Oostenveld & Praamstra 2001), positions in m."""
    name = "colin27_1005" if "colin27_1005" in mne.channels.get_builtin_montages() else "standard_1005"
    positions: dict[str, NDArray[np.float64]] = mne.channels.make_standard_montage(name).get_positions()["ch_pos"]
    return positions


def _with_reference(opened: OpenRecording) -> OpenRecording:
    """The same recording with its reference electrode, if that is one of the 10-05 system, as last channel."""
    sensors = opened.sensors
    standard = standard_positions()
    name = next((name for name in standard if name.lower() == opened.reference.lower()), None)
    if name is None or name in sensors.names:
        return opened
    return replace(
        opened,
        sensors=SensorArray(
            (*sensors.names, name),
            (*sensors.kinds, "eeg"),
            (*sensors.units, "V"),
            np.vstack([sensors.position_C3, standard[name]]),
            (*sensors.status, "reference"),
        ),
        gain_C=np.append(opened.gain_C, np.float32(1e-6)),
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_brainvision(path: Path) -> None:
    """Header, data and marker file must be one recording's, and the data whole."""
    text = path.read_bytes().decode("utf-8", "replace")
    keys: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith((";", "Ch")):
            keys.setdefault(key.strip(), value.strip())
    named = keys.get("DataFile", "").replace("$b", path.stem)
    if not named:
        raise DataError(f"{path}: not a BrainVision header: it names no DataFile")
    data = path.parent / named
    if Path(named).stem != path.stem:
        raise DataError(
            f"{path}: its DataFile is {named}, another recording's name; mend the header "
            "(mne_bids.copyfiles.copyfile_brainvision renames all three files together)"
        )
    if not data.exists():
        raise DataError(f"{data}: the data file that {path.name} names is not there; download it again")
    sizes = {"IEEE_FLOAT_32": 4, "INT_16": 2, "INT_32": 4}
    n_channels = keys.get("NumberOfChannels", "0")
    frame = (int(n_channels) if n_channels.isdigit() else 0) * sizes.get(keys.get("BinaryFormat", ""), 0)
    size = data.stat().st_size
    if frame and (size == 0 or size % frame):
        raise DataError(
            f"{data}: truncated: {size} bytes are not a whole number of samples ({frame} bytes each); download it again"
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
    path = recording.path.with_name(recording.path.name.rsplit("_", 1)[0] + "_channels.tsv")
    marked = list(raw.info["bads"])
    if path.exists():
        table = _sidecar_table(path, ("name", "type"))
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
        if types and "eeg" in types.values():
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
    position_C3 = np.array([raw.info["chs"][k]["loc"][:3] for k in columns], dtype=float)
    position_C3[~np.any(position_C3, axis=1)] = np.nan
    if not np.isfinite(position_C3).any():
        position_C3 = _positions(names, recording)
    status = tuple("bad" if name in bad else "good" for name in names)
    return SensorArray(names, ("eeg",) * len(names), ("V",) * len(names), position_C3, status)


def _positions(names: tuple[str, ...], recording: Recording) -> NDArray[np.float64]:
    path = recording.path.with_name(recording.path.name.rsplit("_", 1)[0] + "_electrodes.tsv")
    if path.exists():
        table = _sidecar_table(path, ("name", "x", "y", "z")).drop_duplicates("name").set_index("name")
        xyz = table.reindex(list(names))[["x", "y", "z"]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
        largest = np.nanmax(np.abs(xyz)) if np.isfinite(xyz).any() else np.nan
        return np.asarray(xyz / (1000.0 if largest > 10 else 100.0 if largest > 1 else 1.0))  # mm, cm or m
    by_name = {name.lower(): position for name, position in standard_positions().items()}
    return np.array([by_name.get(name.lower(), np.full(3, np.nan)) for name in names])


def _segments(raw: Any) -> tuple[Segment, ...]:
    """BAD annotations as bad stretches; boundaries of concatenated or cut recordings as boundaries."""
    found = []
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


def _mapped(path: Path, raw: Any) -> NDArray[Any] | None:
    """The data file as an array, if it holds multiplexed numbers that, scaled, are MNE's own to the bit."""
    if path.suffix != ".vhdr" or raw.orig_format not in BRAINVISION_TYPES:
        return None
    dtype, shape = np.dtype(BRAINVISION_TYPES[raw.orig_format]), (raw.n_times, len(raw.ch_names))
    data = Path(raw.filenames[0])
    if data.stat().st_size != shape[0] * shape[1] * dtype.itemsize:
        return None
    mapped: NDArray[Any] = np.memmap(data, dtype=dtype, mode="r", shape=shape)
    n = min(64, shape[0])
    for start in (0, shape[0] // 2, shape[0] - n):
        theirs = raw.get_data(start=start, stop=start + n).T
        if not np.array_equal(mapped[start : start + n].astype(float) * raw._cals, theirs, equal_nan=True):
            return None
    return mapped
