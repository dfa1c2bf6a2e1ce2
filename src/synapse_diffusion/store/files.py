"""One recording's signal store: a folder that is whole or not there.

signal.npy     (T, C) float32, continuous, V      trials.tsv     one row a trial
sensors.tsv    name, type, unit, x, y, z, status   segments.tsv   start, stop (samples), kind
manifest.json  format version, rate, settings, sources, checksums; no times, no absolute paths
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.errors import BusyError, MissingError, StoreError
from synapse_diffusion.types import TRIAL_COLUMNS, Folder, Segment, SensorArray

if sys.platform != "win32":
    import fcntl

FORMAT: Final = "synapse-diffusion signal store"
VERSION: Final = 1
TABLES: Final = ("trials.tsv", "sensors.tsv", "segments.tsv")
INTEGER_COLUMNS: Final = ("sequence", "repeat", "onset_sample", "is_test", "is_target", "is_catch")


@dataclass(frozen=True)
class SignalStore:
    """One recording: continuous, filtered, resampled, time-major, memory-mapped."""

    folder: Path
    signal_TC: NDArray[np.float32]
    sfreq: float
    sensors: SensorArray
    trials: pd.DataFrame
    segments: tuple[Segment, ...]
    digest: str
    """Of the content: signal and tables."""
    signal_digest: str
    """Of the signal alone: equal for a recording that a data set holds twice."""


@dataclass(frozen=True)
class StoreDraft:
    """A store being written under a temporary name."""

    folder: Path

    def signal(self, n_samples: int, n_sensors: int) -> NDArray[np.float32]:
        """The signal's file as a writable memory map (T, C); its pages belong to the file, not to us."""
        mapped: NDArray[np.float32] = np.lib.format.open_memmap(
            self.folder / "signal.npy", mode="w+", dtype=np.float32, shape=(n_samples, n_sensors)
        )
        # reserves the blocks: a full disk is an error here, not a SIGBUS at the first write
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with (self.folder / "signal.npy").open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        return mapped

    def finish(
        self,
        sfreq: float,
        sensors: SensorArray,
        trials: pd.DataFrame,
        segments: Sequence[Segment],
        about: Mapping[str, Any],
    ) -> None:
        """Write tables and manifest; `about` (settings, sources, counts) goes into the manifest."""
        table = pd.DataFrame(sensors.position_C3, columns=["x", "y", "z"])
        table.insert(0, "unit", list(sensors.units))
        table.insert(0, "type", list(sensors.kinds))
        table.insert(0, "name", list(sensors.names))
        table["status"] = list(sensors.status)
        write_table(trials[list(TRIAL_COLUMNS)], self.folder / "trials.tsv")
        write_table(table, self.folder / "sensors.tsv")
        write_table(
            pd.DataFrame([asdict(s) for s in segments], columns=["start", "stop", "kind"]),
            self.folder / "segments.tsv",
        )
        checksums = {name: file_digest(self.folder / name) for name in ("signal.npy", *TABLES)}
        size = (self.folder / "signal.npy").stat().st_size
        manifest = {"format": FORMAT, "version": VERSION, "sfreq": sfreq, "signal_bytes": size}
        write_json({**manifest, **about, "checksums": checksums}, self.folder / "manifest.json")


@contextmanager
def draft_store(folder: Path) -> Iterator[StoreDraft]:
    """A draft that becomes `folder` when the block ends, and leaves nothing when it fails.

    Raises `MissingError` when the disk is full, `BusyError` while another process drafts the same store.
    """
    draft = folder.with_name(f".{folder.name}.unfinished")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{folder.name}.lock"), folder):
            try:
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                yield StoreDraft(draft)
                if folder.exists():
                    shutil.rmtree(folder)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise MissingError(
            f"{folder}: cannot be written: {error.strerror or error}; free some space or set another paths.stores"
        ) from None


@contextmanager
def locked(path: Path, folder: Path) -> Iterator[None]:
    """Hold a lock file, which the system lets go when its process dies; gone afterwards."""
    if sys.platform == "win32":  # no flock: two processes on one recording are not told apart
        yield
        return
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BusyError(f"{folder}: another process is writing it") from None
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # its owner removed it between our open and our lock
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def find_stores(root: Folder, dataset: str) -> list[Path]:
    """Folders of all finished stores of a data set, sorted. Raises `StoreError` where there is none."""
    root = Path(root)
    found = sorted(path.parent for path in (root / dataset).glob("sub-*/ses-*/run-*/manifest.json"))
    if not found:
        raise StoreError(f"{root / dataset}: no signal store; run `synapse-diffusion convert` with this recipe")
    return found


def stores_below(folder: Path) -> list[Path]:
    """The store that this folder is, or all stores below it, sorted; damaged ones too, none where there is none.

    The folder may be a session, a person, a data set, or one that holds data sets.
    """
    if _looks_like_store(folder):
        return [folder]
    levels = ("run-*", "ses-*/run-*", "sub-*/ses-*/run-*", "*/sub-*/ses-*/run-*")
    return sorted({path for level in levels for path in folder.glob(level) if _looks_like_store(path)})


def store_name(folder: Path) -> str:
    """A store's name within its data set: `sub-01/ses-01/run-rsvp-01`; the folder's own where it was moved."""
    parts = [part for part in folder.parts[-3:] if part.startswith(("sub-", "ses-", "run-"))]
    return "/".join(parts) if len(parts) == 3 else folder.name


def _looks_like_store(folder: Path) -> bool:
    if (folder / "signal.npy").is_file():
        return True
    try:
        return bool(json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("format") == FORMAT)
    except (OSError, ValueError, AttributeError):
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store. Raises `StoreError` where it is missing, no JSON, or of another format."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        raise StoreError(f"{path}: missing or damaged; convert this recording again") from None
    complete = isinstance(manifest, dict) and {"checksums", "signal_bytes", "sfreq"} <= set(manifest)
    if not complete or manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise StoreError(f"{path}: not a {FORMAT} of version {VERSION}; convert this recording again")
    found: dict[str, Any] = manifest
    return found


def content_digest(manifest: Mapping[str, Any]) -> str:
    """Digest of a store's signal and tables, by its manifest's checksums."""
    return hashlib.sha256(json.dumps(manifest["checksums"], sort_keys=True).encode()).hexdigest()


def open_store(folder: Folder, *, verify_signal: bool = True) -> SignalStore:
    """Open and check a store; the signal's checksum is the only slow check (0.2 s a recording of EEG1).

    Raises `StoreError` naming the file that is missing, cut short or edited.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    again = "; delete the folder and convert this recording again"
    for name, expected in manifest["checksums"].items():
        path = folder / name
        if not path.exists():
            raise StoreError(f"{path}: missing{again}")
        if name == "signal.npy" and path.stat().st_size != manifest["signal_bytes"]:
            raise StoreError(
                f"{path}: cut short: {path.stat().st_size} bytes, the manifest says {manifest['signal_bytes']}{again}"
            )
        if (name != "signal.npy" or verify_signal) and file_digest(path) != expected:
            raise StoreError(f"{path}: edited or damaged: its checksum is not the manifest's{again}")
    signal_TC = np.load(folder / "signal.npy", mmap_mode="r", allow_pickle=False)
    sensors = read_table(folder / "sensors.tsv")
    if signal_TC.ndim != 2 or signal_TC.dtype != np.float32 or signal_TC.shape[1] != len(sensors):
        raise StoreError(
            f"{folder / 'signal.npy'}: {signal_TC.dtype} {signal_TC.shape} for {len(sensors)} sensors{again}"
        )
    trials = read_table(folder / "trials.tsv")
    trials = trials.astype(dict.fromkeys(INTEGER_COLUMNS, np.int64) | {"duration_s": float})
    segments = read_table(folder / "segments.tsv")
    return SignalStore(
        folder=folder,
        signal_TC=signal_TC,
        sfreq=float(manifest["sfreq"]),
        sensors=SensorArray(
            tuple(sensors["name"]),
            tuple(sensors["type"]),
            tuple(sensors["unit"]),
            sensors[["x", "y", "z"]].replace("n/a", "nan").to_numpy(dtype=float),
            tuple(sensors["status"]),
        ),
        trials=trials,
        segments=tuple(
            Segment(int(a), int(b), kind)
            for a, b, kind in zip(segments["start"], segments["stop"], segments["kind"], strict=True)
        ),
        digest=content_digest(manifest),
        signal_digest=str(manifest["checksums"]["signal.npy"]),
    )


def read_table(path: Path) -> pd.DataFrame:
    """A TSV with every value as text ("02" stays "02", "n/a" stays "n/a")."""
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """A TSV with "n/a" for missing values, complete or not there."""
    with whole(path) as part:
        table.to_csv(part, sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Readable JSON, complete or not there."""
    with whole(path) as part:
        part.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, in a folder that is made: it takes that name at the end, complete or not
    there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
