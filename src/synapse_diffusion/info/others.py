"""Runs, pairs indices and BIDS data sets."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from synapse_diffusion.bids import OpenRecording, Recording, find_recordings, open_recording
from synapse_diffusion.config import DataSettings
from synapse_diffusion.errors import DataError, RunError, SynapseError
from synapse_diffusion.info.values import Info, Table, between, in_bytes, in_time, read_object, size_of, some
from synapse_diffusion.runs import Run, open_run
from synapse_diffusion.splits import TEST, TRAIN, VALIDATION
from synapse_diffusion.store.files import open_store, read_table
from synapse_diffusion.types import NOT_AVAILABLE, Progress

PAIRS_FORMAT: Final = "synapse-diffusion pairs"
MODALITIES: Final[tuple[Literal["eeg", "meg"], ...]] = ("eeg", "meg")


def info_of_run(path: Path) -> Info:
    """A run: its recipe, categories per split, scores. Raises `SettingsError`, `RunError` for damaged files."""
    run = open_run(path)
    recipe, about = run.recipe, run.provenance
    classes = [str(name) for name in about.get("classes", ())]
    people, channels, shapes = (about.get(name, {}) for name in ("people", "channels", "shape"))
    scores = read_object(path / "scores.json").get("rows", [])
    facts = {
        "recipe": path.absolute().name.rpartition("-")[0] or path.absolute().name,
        "command": str(about.get("command", NOT_AVAILABLE)),
        "data set": recipe.data.name,
        "task": str(about.get("task", NOT_AVAILABLE)),
        "people": _by_modality({name: f"{len(of)} ({some(of)})" for name, of in people.items()}),
        "recordings": f"{len(about.get('stores', {}))}",
        "window": f"{recipe.view.start_s:g} to {recipe.view.stop_s:g} s around onset, "
        + _by_modality({name: f"{of.get('n_times')} samples" for name, of in shapes.items()}),
        "rate": _by_modality({name: f"{of.get('sfreq', 0):g} Hz" for name, of in shapes.items()}),
        "channels": _by_modality({name: f"{len(of)}" for name, of in channels.items()}),
        "classes": f"{len(classes)}: {', '.join(classes)}",
        "split": f"{recipe.split.method}, test on {recipe.split.test}"
        if recipe.split.method == "concepts"
        else f"{recipe.split.folds} folds of contiguous {recipe.split.unit}s",
        "scored": "yes" if scores else "no",
        "size": in_bytes(size_of([path])),
    }
    health, tables = _stores_health(Path(recipe.paths.stores), about.get("stores", {})), []
    try:
        tables.append(_split_table(run, classes))
    except (RunError, KeyError, ValueError, IndexError):
        health.append(f"{path / 'splits.tsv'}: missing or damaged; train again")
    if not (path / "predictions/validation.tsv").exists():
        health.append("training is not finished; the same command goes on from where it stopped")
    elif not scores:
        health.append(f"not scored yet: synapse-diffusion evaluate {path}")
    if scores:
        tables.append(_score_table(scores))
    return Info("run", path, facts, tuple(tables), tuple(health))


def _by_modality(values: dict[str, str]) -> str:
    """One value, or several with their modality."""
    return next(iter(values.values())) if len(values) == 1 else ", ".join(f"{k}: {v}" for k, v in values.items())


def _split_table(run: Run, classes: Sequence[str]) -> Table:
    """Trials and concepts of each class in each part; over folds: the smallest and the largest."""
    splits = run.splits
    n_folds = splits["fold"].nunique()
    parts = (TRAIN, VALIDATION, TEST)
    rows = []
    for k, name in enumerate(classes):
        cells = [name]
        for part in parts:
            mine = splits[(splits["class"] == k) & (splits["split"] == part)].groupby("fold")
            n_concepts = mine["concept"].agg(lambda concept: len(set(concept) - {NOT_AVAILABLE}))
            cells += [between(mine.size()), between(n_concepts) if n_concepts.any() else "-"]
        rows.append(tuple(cells))
    columns = ("class", *(f"{part} {what}" for part in parts for what in ("trials", "concepts")))
    over = f", smallest..largest of {n_folds} folds" if n_folds > 1 else ""
    return Table(f"categories per split{over}", columns, tuple(rows))


def _score_table(scores: Sequence[dict[str, Any]]) -> Table:
    columns = ("split", "decoder", "repeats", "balanced accuracy", "95 % interval", "chance", "p", "decisions")
    rows = []
    for row in scores:
        if row.get("metric") == "balanced_accuracy" and row.get("person") == "all":
            interval = "" if row["low"] is None else f"{row['low']:.3f}..{row['high']:.3f}"
            p = "" if row["p"] is None else f"{row['p']:.4f}"
            repeats = "all" if row["k_repeats"] == 0 else f"{row['k_repeats']}"
            value, chance = f"{row['value']:.3f}", f"{row['chance']:.3f}"
            rows.append((row["split"], row["model"], repeats, value, interval, chance, p, f"{row['n']}"))
    return Table("scores, all people", columns, tuple(rows))


def info_of_pairs(path: Path) -> Info:
    """A pairs index: which images both EEG and MEG have. Raises `DataError` where its table is damaged."""
    manifest = read_object(path / "manifest.json")
    table_path = path / "pairs.tsv"
    try:
        table = read_table(table_path).astype({"is_test": int, "n_eeg": int, "n_meg": int})
        sides = {name: (str(manifest[name]["dataset"]), dict(manifest[name]["stores"])) for name in MODALITIES}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a whole pairs index ({type(error).__name__}: {error}); make it again") from None
    facts: dict[str, str] = {}
    for name, (dataset, stores) in sides.items():
        people = {part for folder in stores for part in Path(folder).parts if part.startswith("sub-")}
        trials = f"{int(table[f'n_{name}'].sum()):,} trials"
        facts[name] = f"data set {dataset}: {len(people)} people, {len(stores)} recordings, {trials}"
    rows = []
    for part, mine in (("main", table[table["is_test"] == 0]), ("test", table[table["is_test"] == 1])):
        both = mine[(mine["n_eeg"] > 0) & (mine["n_meg"] > 0)]
        n_trials = [f"{int(both[f'n_{name}'].sum()):,}" for name in MODALITIES]
        per_image = [between(both[f"n_{name}"]) for name in MODALITIES]
        rows.append((part, f"{len(mine):,}", f"{len(both):,}", f"{both['concept'].nunique():,}", *n_trials, *per_image))
    columns = (
        "part", "images", "in both", "concepts in both", "eeg trials", "meg trials", "eeg an image", "meg an image"
    )  # fmt: skip
    if (path / "unpaired.tsv").exists():
        alone = read_table(path / "unpaired.tsv").astype({"n_eeg": int, "n_meg": int})
        facts["unpaired"] = ", ".join(f"{int((alone[f'n_{name}'] > 0).sum()):,} only in {name}" for name in MODALITIES)
    facts["size"] = in_bytes(size_of([path]))
    health = []
    for dataset, stores in sides.values():
        health += _stores_health(path.parent, stores, dataset)
    return Info("pairs index", path, facts, (Table("images", columns, tuple(rows)),), tuple(health))


def _stores_health(root: Path, stores: dict[str, str], dataset: str = "") -> list[str]:
    """Are the stores there, with the content that was used? Their folders are relative to `root`, or its data set."""
    if not root.is_dir():
        return [f"its {len(stores)} stores were not looked at: no folder {root} here (paths.stores)"]
    lines = []
    for name, digest in stores.items():
        folder = root / name if (root / name).is_dir() else root / dataset / name
        try:
            if open_store(folder, verify_signal=False).digest != digest:
                lines.append(f"{folder}: its content has changed since")
        except SynapseError as error:
            lines.append(f"unreadable: {error}")
    return lines


def info_of_bids(path: Path, progress: Progress) -> Info:
    """A BIDS data set: its recordings by their headers and sidecars; signals stay shut."""
    health: list[str] = []
    description = read_object(path / "dataset_description.json")
    if not description:
        health.append(f"{path / 'dataset_description.json'}: missing or no JSON; BIDS asks for it")
    listed, excluded = _participants(path)
    recordings, wrong = _recordings(path)
    health += wrong
    rows: list[tuple[str, ...]] = []
    opened: list[OpenRecording] = []
    events = sorted(table for table in path.glob("sub-*/**/sub-*_events.tsv"))
    by_person: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        by_person[recording.person].append(recording)
    for person, mine in by_person.items():
        headers, n_events, n_bytes = [], 0, 0
        for recording in mine:
            progress("reading headers", len(opened), len(recordings))
            n_bytes += size_of(_files_of(recording))
            try:
                headers.append(open_recording(recording))
            except SynapseError as error:
                health.append(f"unreadable: {error}")
            if recording.events.exists():
                n_events += _n_rows(recording.events)
            else:
                health.append(f"{recording.path.relative_to(path)}: no event table ({recording.events.name})")
        opened += headers
        rows.append(_bids_row(person, mine, headers, n_events, n_bytes))
    progress("reading headers", len(recordings), len(recordings))
    there = set(by_person)
    if missing := listed - there - excluded:
        health.append(f"participants.tsv lists {len(missing)} people without a recording here: {some(missing)}")
    if out := there & excluded:
        health.append(f"excluded by participants.tsv, left out of convert: {some(out)}")
    for recording_health in sorted({line for header in opened for line in _header_health(header)}):
        health.append(recording_health)
    facts = {
        "name": str(description.get("Name", NOT_AVAILABLE)),
        "BIDS version": str(description.get("BIDSVersion", NOT_AVAILABLE)),
        "people": f"{len(there)} with recordings, {len(listed)} in participants.tsv, {len(excluded)} excluded there",
        "sessions": f"{len({(recording.person, recording.session) for recording in recordings})}",
        "recordings": f"{len(recordings)}",
        "tasks": some({recording.task for recording in recordings}) or NOT_AVAILABLE,
        "rate": ", ".join(sorted({f"{header.sfreq:g} Hz" for header in opened})) or NOT_AVAILABLE,
        "channels": "; ".join(sorted({_kinds(header) for header in opened})) or NOT_AVAILABLE,
        "duration": in_time(sum(header.n_samples / header.sfreq for header in opened)),
        "event tables": f"{len(events)}, {sum(_n_rows(table) for table in events):,} rows",
        "their columns": _columns(events),
        "derivatives": some(p.name for p in (path / "derivatives").glob("*") if p.is_dir()) or "none",
        "size": f"{in_bytes(size_of(f for r in recordings for f in _files_of(r)))} of recordings",
    }
    columns = ("person", "sessions", "recordings", "event rows", "rate", "channels", "marked bad", "duration", "size")
    return Info("BIDS data set", path, facts, (Table("people", columns, tuple(rows)),) if rows else (), tuple(health))


def _recordings(path: Path) -> tuple[list[Recording], list[str]]:
    """All recordings of either modality, the excluded people's too; why there is none."""
    found: dict[Path, Recording] = {}
    wrong = []
    for modality in MODALITIES:
        try:
            settings = DataSettings(modality=modality, include_excluded=True)
            found |= {recording.path: recording for recording in find_recordings(path, settings, lambda _: None)}
        except SynapseError as error:
            wrong.append(str(error))
    return sorted(found.values(), key=lambda r: (r.person, r.session, r.run)), [] if found else sorted(set(wrong))


def _participants(path: Path) -> tuple[set[str], set[str]]:
    """People of participants.tsv, and those whom its column `exclude` marks."""
    try:
        with (path / "participants.tsv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError):
        return set(), set()
    names = {str(row.get("participant_id")).removeprefix("sub-"): row.get("exclude") == "1" for row in rows}
    return set(names), {name for name, is_out in names.items() if is_out}


def _bids_row(
    person: str, recordings: Sequence[Recording], headers: Sequence[OpenRecording], n_events: int, n_bytes: int
) -> tuple[str, ...]:
    return (
        person,
        f"{len({recording.session for recording in recordings})}",
        f"{len(recordings)}",
        f"{n_events:,}",
        ", ".join(sorted({f"{header.sfreq:g} Hz" for header in headers})) or NOT_AVAILABLE,
        between(len(header.sensors.names) for header in headers),
        between(header.sensors.status.count("bad") for header in headers),
        in_time(sum(header.n_samples / header.sfreq for header in headers)),
        in_bytes(n_bytes),
    )


def _kinds(header: OpenRecording) -> str:
    kinds = pd.Series(header.sensors.kinds).value_counts()
    return " + ".join(f"{n} {kind}" for kind, n in kinds.items())


def _header_health(header: OpenRecording) -> list[str]:
    unknown = int((~pd.notna(header.sensors.position_C3).all(axis=1)).sum())
    n = len(header.sensors.names)
    return [f"recordings with {unknown} of {n} sensors whose position is unknown"] if unknown else []


def _files_of(recording: Recording) -> list[Path]:
    """The recording and what belongs to it: files of the same stem (header, data, markers, sidecar)."""
    return sorted(recording.path.parent.glob(f"{recording.path.stem}.*"))


def _n_rows(table: Path) -> int:
    with table.open("rb") as file:
        return max(0, sum(1 for line in file if line.strip()) - 1)


def _columns(tables: Sequence[Path]) -> str:
    """Column names of all event tables, then those that only some have."""
    found: Counter[str] = Counter()
    for table in tables:
        with table.open(encoding="utf-8-sig", errors="replace") as file:
            found.update(file.readline().rstrip("\r\n").split("\t"))
    everywhere = [name for name, n in found.items() if n == len(tables)]
    rest = [name for name, n in found.items() if n < len(tables)]
    return (", ".join(everywhere) or NOT_AVAILABLE) + (f"; only in some: {', '.join(rest)}" if rest else "")
