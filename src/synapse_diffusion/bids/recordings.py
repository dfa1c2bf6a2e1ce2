"""Which recordings a BIDS data set holds, and who is left out.

Paths are matched here rather than through MNE-BIDS because derivatives such as ds003825's
`derivatives/eeglab` do not keep to its file names, and because `read_raw_bids` turns each of 24,648 event
rows into an annotation and stops at tables whose onsets are in samples.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synapse_diffusion.config import DataSettings
from synapse_diffusion.errors import DataError
from synapse_diffusion.types import Say

EXTENSIONS: Final = (".vhdr", ".edf", ".bdf", ".set", ".fif")
IMPLIED: Final = "01"  # BIDS leaves out an entity that has one value


@dataclass(frozen=True)
class Recording:
    """One continuous recording and its event table."""

    person: str
    session: str
    task: str
    run: str
    path: Path
    events: Path

    @property
    def folder(self) -> str:
        """Its place under a data set's stores: person/session/run."""
        return f"sub-{self.person}/ses-{self.session}/run-{self.run}"

    @property
    def sidecars(self) -> tuple[Path, ...]:
        """The small files that decide what is stored, events first."""
        stem = self.path.name.rsplit("_", 1)[0]
        names = (f"{stem}_channels.tsv", f"{stem}_eeg.json", f"{stem}_electrodes.tsv")
        found = tuple(self.path.parent / name for name in names)
        return (self.events, *(path for path in found if path.exists()))


def find_recordings(root: Path, settings: DataSettings, say: Say) -> list[Recording]:
    """All recordings that the settings choose, sorted by person, session and run.

    Raises `DataError` where the folder, a named person or an event table is not there.
    """
    base = root / settings.folder
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; set paths.bids to the BIDS data set")
    files = sorted(
        path
        for path in base.rglob("sub-*")
        if path.suffix in EXTENSIONS and path.is_file() and _relevant(path, base, bool(settings.folder))
    )
    if not files and any(base.rglob("sub-*_events.tsv")):
        raise DataError(
            f"{base}: holds event tables but no recordings ({', '.join(EXTENSIONS)}); download the data files"
        )
    if not files:
        raise DataError(f"{base}: no EEG recording (sub-*/eeg/*_eeg{{{','.join(EXTENSIONS)}}}) in it")
    recordings = [_recording(path, root) for path in files]
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
    return _without_excluded(recordings, root, settings, say)


def read_json(path: Path) -> Mapping[str, object]:
    """A JSON sidecar; empty where there is none. Raises `DataError` where it is not JSON."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    return values if isinstance(values, dict) else {}


def _relevant(path: Path, base: Path, derivative: bool) -> bool:
    if path.name.startswith("._"):
        return False
    parts = path.relative_to(base).parts
    if derivative:
        return True
    return parts[0].startswith("sub-") and path.parent.name == "eeg" and path.stem.endswith("_eeg")


def _entities(path: Path) -> dict[str, str]:
    pairs = (part.split("-", 1) for part in path.stem.split("_") if "-" in part)
    return {pair[0]: pair[1] for pair in pairs}


def _entity(recording: Recording, key: str) -> str:
    run = recording.run.rsplit("-", 1)[-1]
    return {"people": recording.person, "sessions": recording.session, "tasks": recording.task, "runs": run}[key]


def _recording(path: Path, root: Path) -> Recording:
    entities = _entities(path)
    person, session = entities["sub"], entities.get("ses", IMPLIED)
    task, run = entities.get("task", "task"), entities.get("run", IMPLIED)
    return Recording(person, session, task, f"{task}-{run}", path, _events_path(path, root, entities))


def _events_path(path: Path, root: Path, entities: Mapping[str, str]) -> Path:
    """Beside the recording, or (for a derivative without its own) in the raw data set."""
    stem = "_".join(part for part in path.stem.split("_") if "-" in part)
    beside = path.parent / f"{stem}_events.tsv"
    if beside.exists():
        return beside
    kept = [f"{key}-{entities[key]}" for key in ("sub", "ses", "task", "run") if key in entities]
    session = [f"ses-{entities['ses']}"] if "ses" in entities else []
    raw = root.joinpath(f"sub-{entities['sub']}", *session, "eeg", "_".join(kept) + "_events.tsv")
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
