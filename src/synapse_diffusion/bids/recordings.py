"""Which recordings a BIDS data set holds, and who is left out.

Paths are matched here rather than through MNE-BIDS because derivatives such as ds003825's
`derivatives/eeglab` do not keep to its file names, and because `read_raw_bids` turns each of 24,648 event
rows into an annotation and stops at tables whose onsets are in samples.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synapse_diffusion.config import DataSettings
from synapse_diffusion.errors import DataError
from synapse_diffusion.types import Say

EXTENSIONS: Final = {
    "eeg": (".vhdr", ".edf", ".bdf", ".set", ".fif"),
    "meg": (".ds", ".fif", ".con", ".sqd"),  # CTF (a folder), Elekta/MEGIN, KIT
}
IMPLIED: Final = "01"  # BIDS leaves out an entity that has one value
ROOM: Final = "emptyroom"  # BIDS's person for recordings of nobody
CALIBRATION: Final = ("crosstalk", "calibration")  # BIDS's acq- for MEGIN's fine-tuning files
EEG2_EPOCHS: Final = "preprocessed_eeg_"  # THINGS-EEG2's files of epochs
EPOCHS: Final = re.compile(r"[-_]epo\.fif$")  # a later part of a split file is `-epo-1.fif`: read with its first
THINGS_EPOCHS: Final = re.compile(r"preprocessed_P(\d+)-epo$")  # ds004212's own name for person BIGMEG<n>


@dataclass(frozen=True)
class Recording:
    """One continuous recording and its event table."""

    person: str
    session: str
    task: str
    run: str
    path: Path
    events: Path
    modality: str = "eeg"

    @property
    def folder(self) -> str:
        """Its place under a data set's stores: person/session/run."""
        return f"sub-{self.person}/ses-{self.session}/run-{self.run}"

    @property
    def holds_epochs(self) -> bool:
        """Is it a file of epochs, cut and filtered by others, rather than a continuous recording?"""
        return EPOCHS.search(self.path.name) is not None or self.path.name.startswith(EEG2_EPOCHS)

    @property
    def is_eeg2(self) -> bool:
        """Is it one of THINGS-EEG2's numpy files, whose `events` are the list of images?"""
        return self.path.suffix == ".npy"

    @property
    def sidecars(self) -> tuple[Path, ...]:
        """The small files that decide what is stored, events first."""
        names = ("channels.tsv", f"{self.modality}.json", "electrodes.tsv")
        return (self.events, *(path for path in map(self.sidecar, names) if path.exists()))

    def sidecar(self, suffix: str) -> Path:
        """The file beside the recording that shares its entities, e.g. `channels.tsv`; it need not exist."""
        stem = self.path.name.rsplit("_", 1)[0]
        return _data_folder(self.path) / f"{stem}_{suffix}"


def find_recordings(root: Path, settings: DataSettings, say: Say) -> list[Recording]:
    """All recordings that the settings choose, sorted by person, session and run.

    Raises `DataError` where the folder, a named person or an event table is not there.
    """
    base = data_folder_of(root, settings)
    modality = settings.modality
    files = sorted(
        path for path in base.rglob("*") if _relevant(path, base, modality, derivative=bool(settings.folder))
    )
    kinds = ",".join(EXTENSIONS[modality])
    if not files and any(base.rglob(f"{modality}/sub-*_events.tsv")):
        raise DataError(f"{base}: holds event tables but no recordings ({kinds}); download the data files")
    if not files:
        raise DataError(f"{base}: no {modality.upper()} recording (sub-*/{modality}/*_{modality}{{{kinds}}}) in it")
    recordings = chosen([_recording(path, root, modality) for path in files], base, settings)
    return _without_excluded(recordings, root, settings, say)


def data_folder_of(root: Path, settings: DataSettings) -> Path:
    """The folder with the recordings. Raises `DataError` where it is not there."""
    base = root / settings.folder
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; set paths.bids to the data set, or simulate one first")
    return base


def chosen(recordings: list[Recording], base: Path, settings: DataSettings) -> list[Recording]:
    """Those of the people, sessions, tasks and runs that the settings name. Raises `DataError` for one not there."""
    wanted = {
        "people": settings.people,
        "sessions": settings.sessions,
        "tasks": settings.tasks,
        "runs": settings.runs,
    }
    for key, names in wanted.items():
        there = {_entity(recording, key) for recording in recordings}
        if missing := [name for name in names if name not in there]:
            raise DataError(f"{base}: data.{key} names {', '.join(missing)}; there are {', '.join(sorted(there))}")
        recordings = [r for r in recordings if not names or _entity(r, key) in names]
    return recordings


def read_json(path: Path) -> Mapping[str, object]:
    """A JSON sidecar; empty where there is none. Raises `DataError` where it is not JSON."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    return values if isinstance(values, dict) else {}


def _relevant(path: Path, base: Path, modality: str, *, derivative: bool) -> bool:
    """Is it a recording: of this modality, neither a macOS leftover (`._*`), nor part of one (CTF's `hz.ds`)?"""
    if path.suffix not in EXTENSIONS[modality] or path.name.startswith("._"):
        return False
    parts = path.relative_to(base).parts
    inside = any(part.endswith(".ds") for part in parts[:-1])
    if inside or path.is_dir() != (path.suffix == ".ds"):
        return False
    if EPOCHS.search(path.name):
        return derivative
    if not path.name.startswith("sub-") or path.name.startswith(f"sub-{ROOM}"):
        return False
    entities = _entities(path)
    if entities.get("acq") in CALIBRATION or entities.get("split", "01").lstrip("0") not in ("", "1"):
        return False  # MNE follows the first part of a split file to the others
    if derivative:
        return True
    return parts[0].startswith("sub-") and _data_folder(path).name == modality and path.stem.endswith(f"_{modality}")


def _data_folder(path: Path) -> Path:
    """The folder with the sidecars; KIT files may lie in one of their own below it."""
    return path.parent.parent if path.parent.name == path.stem else path.parent


def _entities(path: Path) -> dict[str, str]:
    stem = EPOCHS.sub("", path.name) if EPOCHS.search(path.name) else path.stem
    pairs = (part.split("-", 1) for part in stem.split("_") if "-" in part)
    return {pair[0]: pair[1] for pair in pairs}


def _entity(recording: Recording, key: str) -> str:
    run = recording.run.rsplit("-", 1)[-1]
    return {"people": recording.person, "sessions": recording.session, "tasks": recording.task, "runs": run}[key]


def _recording(path: Path, root: Path, modality: str) -> Recording:
    entities = _entities(path)
    if of_things := THINGS_EPOCHS.match(path.stem):
        entities = {"sub": f"BIGMEG{of_things[1]}", "ses": "all", "task": "main", "run": "epochs"}
    elif "sub" not in entities:
        raise DataError(f"{path}: whose recording is it? Name it sub-<person>_..., as BIDS does")
    person, session = entities["sub"], entities.get("ses", IMPLIED)
    task, run = entities.get("task", "task"), entities.get("run", IMPLIED)
    events = _events_path(path, root, entities, modality)
    return Recording(person, session, task, f"{task}-{run}", path, events, modality)


def _events_path(path: Path, root: Path, entities: Mapping[str, str], modality: str) -> Path:
    """Beside the recording, or (for a derivative without its own) in the raw data set."""
    stem = "_".join(part for part in path.stem.split("_") if "-" in part and not part.startswith("split-"))
    beside = _data_folder(path) / f"{stem}_events.tsv"
    if beside.exists():
        return beside
    kept = [f"{key}-{entities[key]}" for key in ("sub", "ses", "task", "run") if key in entities]
    session = [f"ses-{entities['ses']}"] if "ses" in entities else []
    raw = root.joinpath(f"sub-{entities['sub']}", *session, modality, "_".join(kept) + "_events.tsv")
    return raw if raw.exists() else beside


def _without_excluded(recordings: list[Recording], root: Path, settings: DataSettings, say: Say) -> list[Recording]:
    table = root / "participants.tsv"
    if settings.include_excluded or not table.exists():
        return recordings
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not a UTF-8 table: {error}") from None
    excluded = {str(row.get("participant_id")).removeprefix("sub-") for row in rows if row.get("exclude") == "1"}
    left_out = sorted({r.person for r in recordings} & excluded)
    if left_out:
        say(
            f"left out (participants.tsv says exclude): {', '.join(left_out)}; "
            "data.include_excluded = true takes them in"
        )
    kept = [recording for recording in recordings if recording.person not in excluded]
    if not kept:
        raise DataError(f"{table}: every chosen person is excluded; set data.include_excluded = true")
    return kept
