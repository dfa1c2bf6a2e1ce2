"""Signal stores -> epochs as tensor files or MNE epochs, for other people's training code; one recording at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from shutil import disk_usage, rmtree
from typing import Any, Final, Literal

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from synapse_diffusion.config import ViewSettings, parse_recipe
from synapse_diffusion.errors import DataError, MissingError, SettingsError, StoreError
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import (
    SignalStore,
    open_store,
    read_manifest,
    store_name,
    stores_below,
    write_json,
    write_table,
)
from synapse_diffusion.types import NOT_AVAILABLE, TRIAL_COLUMNS, Progress, Say

Format = Literal["npy", "safetensors", "hdf5", "fif"]
VIEW_KEYS: Final = ("start_s", "stop_s", "baseline", "channels")
CHUNK_BYTES: Final = 32 * 2**20  # epochs cut at a time
PART_BYTES: Final = 128 * 2**20  # a safetensors or FIF file: MNE holds one several times over, in double precision


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    shape: tuple[int, int, int]
    """Trials, sensors, time samples."""
    n_left_out: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """One recording's part of an export."""

    name: str
    store: SignalStore
    """Without its trial table, which is read again when its turn comes."""
    rows: NDArray[np.int64]
    """Trials that are exported."""
    names: tuple[str, ...]
    """Their event names."""
    n_trials: int
    band_hz: tuple[float, float]


@dataclass(frozen=True)
class _Plan:
    """All that is decided before the first epoch is cut."""

    sources: tuple[_Source, ...]
    view: ViewSettings
    channels: tuple[str, ...]
    sfreq: float
    times: NDArray[np.float64]
    event_id: dict[str, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        return sum(len(source.rows) for source in self.sources), len(self.channels), len(self.times)

    @property
    def epoch_bytes(self) -> int:
        return 4 * len(self.channels) * len(self.times)


@dataclass(frozen=True)
class _Chunk:
    """Some epochs of one recording, in the order of its trial table."""

    source: _Source
    number: int
    trials: pd.DataFrame
    x_NCT: NDArray[np.float32]


def view_of(overrides: Sequence[str]) -> ViewSettings:
    """The window from `view.key=value` overrides of the defaults. Raises `SettingsError` for any other key."""
    for override in overrides:
        if override.partition("=")[0].strip() not in {f"view.{key}" for key in VIEW_KEYS}:
            raise SettingsError(
                f"--set {override}: export cuts epochs, scales and rejects nothing; it takes "
                f"{', '.join(f'view.{key}' for key in VIEW_KEYS)}"
            )
    return parse_recipe({}, overrides).view


def export(path: Path, out: Path, form: Format, view: ViewSettings, say: Say, progress: Progress) -> Exported:
    """Write all usable epochs of the stores at `path` (one store, or a folder above some) into the new folder `out`.

    Signals are in the sensors' own units (V, T, T/m), unscaled. Raises `StoreError` where there is no store or no
    usable trial, `DataError` where `out` holds something already, `MissingError` for space or a package.
    """
    path, out = path.absolute(), out.absolute()
    if form == "hdf5" and find_spec("h5py") is None:
        raise MissingError("--format hdf5 needs the package h5py: pip install 'synapse-diffusion[hdf5]'")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out}: is there already and not an empty folder; give the name of a new one")
    plan = _plan(path, view, progress)
    n_left_out = sum(source.n_trials for source in plan.sources) - plan.shape[0]
    _say_plan(plan, n_left_out, say)
    with _draft(out, plan.shape[0] * plan.epoch_bytes * (2 if form == "fif" else 1)) as draft:
        files = _WRITERS[form](plan, draft, progress)
        _write_about(plan, draft, form, files, n_left_out)
    return Exported(out, plan.shape, n_left_out, files)


def _plan(path: Path, view: ViewSettings, progress: Progress) -> _Plan:
    if not path.is_dir():
        raise StoreError(f"{path}: no such folder; give a signal store or a folder above some (stores/DATASET)")
    folders = stores_below(path)
    if not folders:
        raise StoreError(f"{path}: no signal store in it; give a store or a folder above some (stores/DATASET)")
    if len(datasets := sorted({folder.parent.parent.parent.name for folder in folders})) > 1:
        raise StoreError(f"{path}: holds the data sets {', '.join(datasets)}; export one at a time")
    sources = []
    for k, folder in enumerate(folders):
        progress("opening stores", k, len(folders))
        sources.append(_source(open_store(folder), view))
    progress("opening stores", len(folders), len(folders))
    stores = [source.store for source in sources]
    everything = Epochs(stores, view.start_s, view.stop_s, view.baseline, view.channels)  # checks rates and channels
    first = round(view.start_s * everything.sfreq)
    _require_equal_kinds(stores, everything.channels)
    names = sorted({name for source in sources for name in source.names})
    plan = _Plan(
        sources=tuple(sources),
        view=view,
        channels=everything.channels,
        sfreq=everything.sfreq,
        times=(first + np.arange(everything.n_times)) / everything.sfreq,
        event_id={name: k + 1 for k, name in enumerate(names)},
    )
    if plan.shape[0] == 0:
        n_trials = sum(source.n_trials for source in sources)
        raise StoreError(
            f"{path}: none of {n_trials} trials is usable from {view.start_s:g} to {view.stop_s:g} s: they touch a bad "
            "stretch or the recording's ends; choose a shorter view.start_s .. view.stop_s"
        )
    return plan


def _source(store: SignalStore, view: ViewSettings) -> _Source:
    epochs = Epochs([store], view.start_s, view.stop_s, view.baseline, view.channels)
    rows = np.flatnonzero(epochs.trials["usable"])
    convert = read_manifest(store.folder).get("settings", {}).get("convert", {})
    return _Source(
        name=store_name(store.folder),
        store=replace(store, trials=store.trials.iloc[:0]),
        rows=rows,
        names=tuple(sorted(set(_event_names(store.trials.iloc[rows])))),
        n_trials=len(store.trials),
        band_hz=(convert.get("highpass_hz") or 0.0, convert.get("lowpass_hz") or store.sfreq / 2),
    )


def _event_names(trials: pd.DataFrame) -> pd.Series[str]:
    """Each trial's concept, else the data set's own class, else `n/a`; without FIF's marks between names."""
    names = trials["concept"].where(trials["concept"] != NOT_AVAILABLE, trials["label"])
    return names.str.replace("[:;]", "_", regex=True)


def _require_equal_kinds(stores: Sequence[SignalStore], channels: Sequence[str]) -> None:
    """One sensor must be of one kind and unit in all recordings: they become one column."""
    seen: dict[str, tuple[tuple[str, str], Path]] = {}
    for store in stores:
        kinds = dict(zip(store.sensors.names, zip(store.sensors.kinds, store.sensors.units, strict=True), strict=True))
        for name in channels:
            kind, where = seen.setdefault(name, (kinds[name], store.folder))
            if kind != kinds[name]:
                raise StoreError(
                    f"{store.folder}: channel {name} is {' in '.join(kinds[name])}, {' in '.join(kind)} in {where}; "
                    "export them apart"
                )


def _say_plan(plan: _Plan, n_left_out: int, say: Say) -> None:
    n, n_channels, n_times = plan.shape
    baseline = plan.view.baseline
    taken = "no baseline" if baseline is None else f"baseline {baseline[0]:g} .. {baseline[1]:g} s taken off"
    say(
        f"window {plan.view.start_s:g} .. {plan.view.stop_s:g} s around onset: {n_times} samples at {plan.sfreq:g} Hz "
        f"(first {plan.times[0]:g} s, last {plan.times[-1]:g} s), {taken}, {n_channels} channels"
    )
    why = f"; {n_left_out} left out: they touch a bad stretch or the recording's ends"
    say(f"{n} of {n + n_left_out} trials" + (why if n_left_out else ""))


@contextmanager
def _draft(out: Path, n_bytes: int) -> Iterator[Path]:
    """A folder that becomes `out` when the block ends, and leaves nothing when it fails."""
    draft = out.with_name(f".{out.name}.unfinished")
    try:
        rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        free = disk_usage(draft).free
        if free < n_bytes:
            raise MissingError(
                f"{out}: the epochs need {n_bytes / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free; free some, "
                "give another folder, or choose a shorter window or fewer channels (view.*)"
            )
        yield draft
        if out.exists():
            out.rmdir()
        draft.rename(out)
    except OSError as error:
        raise MissingError(
            f"{out}: cannot be written: {error.strerror or error}; free some space or give another folder"
        ) from None
    finally:
        rmtree(draft, ignore_errors=True)


def _chunks(plan: _Plan, draft: Path, n_bytes: int, progress: Progress) -> Iterator[_Chunk]:
    """The epochs, recording after recording, at most `n_bytes` at a time; their trials go to trials.tsv on the way."""
    view, step = plan.view, max(1, n_bytes // plan.epoch_bytes)
    done, total = 0, plan.shape[0]
    progress("exporting", 0, total)
    with (draft / "trials.tsv").open("w", encoding="utf-8", newline="") as file:
        for source in plan.sources:
            store = open_store(source.store.folder, verify_signal=False)
            epochs = Epochs([store], view.start_s, view.stop_s, view.baseline, plan.channels)
            for number, start in enumerate(range(0, len(source.rows), step)):
                rows = source.rows[start : start + step]
                trials = store.trials.iloc[rows][list(TRIAL_COLUMNS)].assign(store=source.name)
                trials.to_csv(file, sep="\t", index=False, header=done == 0, na_rep=NOT_AVAILABLE, lineterminator="\n")
                yield _Chunk(source, number, trials, epochs.read(rows).contiguous().numpy())
                done += len(rows)
                progress("exporting", done, total)


def _write_npy(plan: _Plan, draft: Path, progress: Progress) -> tuple[str, ...]:
    # written front to back, not through a memory map: a full disk is then an error, not a SIGBUS
    with (draft / "epochs.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": plan.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in _chunks(plan, draft, CHUNK_BYTES, progress):
            file.write(chunk.x_NCT.astype("<f4", copy=False).data)
    return ("epochs.npy",)


def _write_hdf5(plan: _Plan, draft: Path, progress: Progress) -> tuple[str, ...]:
    import h5py  # an optional package

    path = draft / "epochs.h5"
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, plan.shape[0] * plan.epoch_bytes + 2**20)
    with h5py.File(path, "w") as h5:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple(plan.shape)
        data = h5py.Dataset(h5py.h5d.create(h5.id, b"epochs", h5py.h5t.IEEE_F32LE, space, layout))
        data.attrs.update(axes="NCT", sfreq=plan.sfreq, channels=list(plan.channels), units=_units(plan))
        h5.create_dataset("times", data=plan.times).attrs["unit"] = "s"
        offset = data.id.get_offset()
    # the values go to their place in the file by ourselves: the library crashes the process where the disk is full
    with path.open("r+b") as file:
        file.seek(offset)
        for chunk in _chunks(plan, draft, CHUNK_BYTES, progress):
            file.write(chunk.x_NCT.astype("<f4", copy=False).data)
    return (path.name,)


def _write_safetensors(plan: _Plan, draft: Path, progress: Progress) -> tuple[str, ...]:
    step = max(1, PART_BYTES // plan.epoch_bytes)
    n_files = sum(-(-len(source.rows) // step) for source in plan.sources)
    files = []
    for k, chunk in enumerate(_chunks(plan, draft, PART_BYTES, progress)):
        files.append(f"epochs-{k + 1:05d}-of-{n_files:05d}.safetensors")
        about = {"axes": "NCT", "sfreq": repr(plan.sfreq), "store": chunk.source.name}
        try:
            save_file({"epochs": chunk.x_NCT}, draft / files[-1], about)
        except SafetensorError as error:  # its class for a full disk, too
            raise OSError(str(error)) from None
        (draft / files[-1]).chmod(0o644)  # safetensors makes files that only their owner can read
    return tuple(files)


def _write_fif(plan: _Plan, draft: Path, progress: Progress) -> tuple[str, ...]:
    files = []
    for chunk in _chunks(plan, draft, PART_BYTES, progress):
        files.append(f"{chunk.source.name.replace('/', '_')}_part-{chunk.number + 1:02d}-epo.fif")
        names = _event_names(chunk.trials)
        onset = chunk.trials["onset_sample"].to_numpy()
        events = np.column_stack([onset, np.zeros_like(onset), names.map(plan.event_id)]).astype(np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # trials stay in the table's order, chronological or not
            epochs = mne.EpochsArray(
                chunk.x_NCT,
                _info(plan, chunk.source),
                events,
                tmin=float(plan.times[0]),
                event_id={name: plan.event_id[name] for name in sorted(set(names))},
                metadata=chunk.trials.reset_index(drop=True),
                verbose="error",
            )
            epochs.save(draft / files[-1], fmt="single", verbose="error")
    return tuple(files)


def _info(plan: _Plan, source: _Source) -> Any:
    """MNE's measurement info: kinds, positions in head coordinates, bad channels, band."""
    sensors = source.store.sensors
    at = [sensors.names.index(name) for name in plan.channels]
    info = mne.create_info(list(plan.channels), plan.sfreq, [sensors.kinds[k] for k in at], verbose="error")
    electrodes = [k for k in at if sensors.kinds[k] == "eeg" and np.isfinite(sensors.position_C3[k]).all()]
    if electrodes:
        positions = {sensors.names[k]: sensors.position_C3[k] for k in electrodes}
        info.set_montage(mne.channels.make_dig_montage(positions, coord_frame="head"), on_missing="ignore")
    with info._unlock():
        info["highpass"], info["lowpass"] = source.band_hz
        if any(sensors.kinds[k] != "eeg" for k in at):  # stores keep head coordinates: device and head are one here
            info["dev_head_t"] = mne.transforms.Transform("meg", "head")
    for channel, k in zip(info["chs"], at, strict=True):
        if sensors.kinds[k] != "eeg":
            channel["loc"][:3] = sensors.position_C3[k]
    info["bads"] = [sensors.names[k] for k in at if sensors.status[k] == "bad"]
    return info


_WRITERS: Final = {"npy": _write_npy, "hdf5": _write_hdf5, "safetensors": _write_safetensors, "fif": _write_fif}


def _units(plan: _Plan) -> list[str]:
    sensors = plan.sources[0].store.sensors
    return [sensors.units[sensors.names.index(name)] for name in plan.channels]


def _write_about(plan: _Plan, draft: Path, form: Format, files: Sequence[str], n_left_out: int) -> None:
    tables = []
    for source in plan.sources:
        sensors = source.store.sensors
        at = [sensors.names.index(name) for name in plan.channels]
        table = pd.DataFrame({"name": plan.channels, "type": [sensors.kinds[k] for k in at], "unit": _units(plan)})
        table[["x", "y", "z"]] = sensors.position_C3[at]
        tables.append(table.assign(status=[sensors.status[k] for k in at], store=source.name))
    write_table(pd.concat(tables), draft / "sensors.tsv")
    start_stop = [0, *np.cumsum([len(source.rows) for source in plan.sources]).tolist()]
    about = {
        "format": "synapse-diffusion epochs",
        "version": 1,
        "files": list(files),
        "axes": "NCT: trials, sensors (order of sensors.tsv), time samples",
        "shape": list(plan.shape),
        "dtype": "float32",
        "units": dict(zip(plan.channels, _units(plan), strict=True)),
        "sfreq_hz": plan.sfreq,
        "times_s": plan.times.tolist(),
        "view": {key: value for key, value in plan.view.model_dump(mode="json").items() if key in VIEW_KEYS},
        "left_out_trials": n_left_out,
        "stores": {
            source.name: {"digest": source.store.digest, "first": first, "stop": stop}
            for source, (first, stop) in zip(plan.sources, pairwise(start_stop), strict=True)
        },
    }
    write_json(about, draft / "about.json")
