"""Signal stores: trials, images, channels, health."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from synapse_diffusion.bids import read_concepts
from synapse_diffusion.config import Recipe, ViewSettings
from synapse_diffusion.errors import SynapseError
from synapse_diffusion.info.values import Info, Table, between, in_bytes, in_time, share, size_of
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import SignalStore, open_store, read_manifest, store_name
from synapse_diffusion.types import NOT_AVAILABLE, Progress

SHOWN_COLUMNS: Final = ["person", "image_id", "concept", "label", "is_test", "is_target", "is_catch"]
MAX_LABELS: Final = 30  # rows of the table of labels


@dataclass
class _Sums:
    """Over one person's recordings."""

    sessions: set[tuple[str, ...]] = field(default_factory=set)
    recordings: int = 0
    trials: int = 0
    usable: int = 0
    seconds: float = 0.0
    bytes: int = 0
    channels: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)


def info_of_stores(path: Path, folders: Sequence[Path], settings: Recipe, progress: Progress) -> Info:
    """Counts over all readable stores; their signals are not read, only their sizes are checked."""
    view = settings.view
    people: dict[str, _Sums] = defaultdict(_Sums)
    facts: dict[str, Counter[str]] = defaultdict(Counter)
    health: list[str] = []
    by_signal: dict[str, list[str]] = defaultdict(list)
    shown: list[pd.DataFrame] = []
    for k, folder in enumerate(folders):
        progress("reading stores", k, len(folders))
        try:
            store = open_store(folder, verify_signal=False)
            usable = _usable(store, view)
        except SynapseError as error:
            health.append(f"unreadable: {error}")
            continue
        name = str(folder.relative_to(path)) if folder != path else store_name(folder)
        by_signal[store.signal_digest].append(name)
        facts["data set"][folder.absolute().parent.parent.parent.name] += 1
        facts["rate"][f"{store.sfreq:g} Hz"] += 1
        facts["filter"][_filter(read_manifest(folder))] += 1
        facts["channels"][_channels(store)] += 1
        shown.append(store.trials[SHOWN_COLUMNS].value_counts(sort=False).rename("n").reset_index())
        health += [f"{name}: {line}" for line in _health(store, usable)]
        _add(people, store, usable)
    progress("reading stores", len(folders), len(folders))
    for same in by_signal.values():
        health += [f"{name}: the same signal as {same[0]}, bit for bit; training leaves it out" for name in same[1:]]
    n_read = sum(sums.recordings for sums in people.values())
    recordings = f"{n_read}" if n_read == len(folders) else f"{n_read} of {len(folders)}, the others cannot be read"
    if not n_read:
        return Info("signal stores", path, {"recordings": recordings}, (), tuple(health))
    if len(facts["rate"]) > 1:
        health.append("different rates: these stores cannot be trained on together; convert them again")
    counts = pd.concat(shown).groupby(SHOWN_COLUMNS)["n"].sum().reset_index()
    everyone = list(people.values())
    told = {
        "data set": _listed(facts["data set"]),
        "people": f"{len(people)}",
        "sessions": f"{sum(len(sums.sessions) for sums in everyone)}",
        "recordings": recordings,
        **_trial_facts(counts),
        "usable": f"{share(sum(s.usable for s in everyone), sum(s.trials for s in everyone))} of trials "
        f"from {view.start_s:g} to {view.stop_s:g} s around onset",
        **{key: _listed(facts[key]) for key in ("rate", "filter", "channels")},
        "duration": in_time(sum(sums.seconds for sums in everyone)),
        "size": in_bytes(sum(sums.bytes for sums in everyone)),
    }
    tables = [_people_table(people), *_category_tables(counts, settings)]
    kind = "signal store" if len(folders) == 1 else "signal stores"
    return Info(kind, path, told, tuple(tables), tuple(health))


def _usable(store: SignalStore, view: ViewSettings) -> int:
    return int(Epochs([store], view.start_s, view.stop_s, view.baseline).trials["usable"].sum())


def _add(people: dict[str, _Sums], store: SignalStore, usable: int) -> None:
    sums = people[str(store.trials["person"].iloc[0]) if len(store.trials) else NOT_AVAILABLE]
    sums.sessions |= {(str(store.folder.absolute().parent),)}
    sums.recordings += 1
    sums.trials += len(store.trials)
    sums.usable += usable
    sums.seconds += len(store.signal_TC) / store.sfreq
    sums.bytes += size_of(store.folder.iterdir())
    sums.channels.append(len(store.sensors.names))
    sums.bad.append(store.sensors.status.count("bad"))


def _channels(store: SignalStore) -> str:
    kinds = Counter(zip(store.sensors.kinds, store.sensors.units, strict=True))
    return " + ".join(f"{n} {kind} ({unit})" for (kind, unit), n in kinds.items())


def _filter(manifest: dict[str, Any]) -> str:
    convert = manifest.get("settings", {}).get("convert", {})
    low, high = convert.get("highpass_hz") or 0, convert.get("lowpass_hz")
    band = f"{low:g} .. {f'{high:g}' if high else 'half the rate'} Hz"
    if manifest.get("modality") == "meg":
        return band
    return f"{band}, reference {', '.join(convert.get('reference', ())) or NOT_AVAILABLE}"


def _health(store: SignalStore, usable: int) -> list[str]:
    """What conversion noted, bad stretches, unusable trials, unknown positions."""
    notes = [str(note) for note in read_manifest(store.folder).get("notes", ())]
    lines = [note for note in notes if "dropouts bridged" not in note]  # counted below
    bad = [n for n, status in zip(store.sensors.names, store.sensors.status, strict=True) if status == "bad"]
    if bad and not any(line.startswith("bad channels") for line in lines):
        lines.append(f"bad channels: {', '.join(bad)}")
    for kind in ("bad", "dropout"):
        if stretches := [segment for segment in store.segments if segment.kind == kind]:
            seconds = sum(segment.stop - segment.start for segment in stretches) / store.sfreq
            lines.append(
                f"{len(stretches)} {kind} segments, {seconds:.1f} s of {len(store.signal_TC) / store.sfreq:.0f} s"
            )
    if usable < len(store.trials):
        lines.append(f"{len(store.trials) - usable} of {len(store.trials)} trials touch a bad stretch or an end")
    unknown = int((~pd.notna(store.sensors.position_C3).all(axis=1)).sum())
    if unknown:
        lines.append(f"{unknown} of {len(store.sensors.names)} sensors have no known position")
    return lines


def _listed(found: Counter[str]) -> str:
    """One value, or each with its number of recordings."""
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{value} ({n} recordings)" for value, n in found.most_common())


def _trial_facts(counts: pd.DataFrame) -> dict[str, str]:
    """Trials, images and concepts of the main part and of the repeated test images; catch trials apart."""
    catch, test = counts["is_catch"] == 1, (counts["is_test"] == 1) & (counts["is_catch"] == 0)
    parts = {"main": counts[~catch & ~test], "test": counts[test]}
    parts = {name: part for name, part in parts.items() if len(part)}
    n_catch, n_target = (int(counts.loc[counts[flag] == 1, "n"].sum()) for flag in ("is_catch", "is_target"))
    trials = [f"{int(part['n'].sum()):,} {name}" for name, part in parts.items()]
    trials += [f"{n_catch:,} catch"] * bool(n_catch)
    told = f": {', '.join(trials)}" if len(trials) > 1 else ""
    facts = {"trials": f"{int(counts['n'].sum()):,}{told}" + f"; {n_target:,} targets" * bool(n_target)}
    for column, plural in (("image_id", "images"), ("concept", "concepts")):
        lines = []
        for name, part in parts.items():
            known = part[part[column] != NOT_AVAILABLE]
            if len(known):
                each = known.groupby(["person", column])["n"].sum()
                times = f", each shown {between(each)} times a person" if column == "image_id" else ""
                lines.append(f"{known[column].nunique():,} {name}{times}")
        facts |= {plural: "; ".join(lines)} if lines else {}
    return facts


def _people_table(people: dict[str, _Sums]) -> Table:
    columns = ("person", "sessions", "recordings", "trials", "usable", "channels", "bad", "duration", "size")
    rows = [
        (
            person, f"{len(sums.sessions)}", f"{sums.recordings}", f"{sums.trials:,}", share(sums.usable, sums.trials),
            between(sums.channels), between(sums.bad), in_time(sums.seconds), in_bytes(sums.bytes),
        )
        for person, sums in sorted(people.items())
    ]  # fmt: skip
    return Table("people", columns, tuple(rows))


def _category_tables(counts: pd.DataFrame, settings: Recipe) -> list[Table]:
    """Trials by the data set's own classes, and by the recipe's categories where it names some."""
    tables = []
    main = counts[counts["is_catch"] == 0]
    if (main["label"] != NOT_AVAILABLE).any() and main["label"].nunique() <= MAX_LABELS:
        rows = [_category_row(str(label), part) for label, part in main.groupby("label")]
        tables.append(Table("classes (column label)", ("class", *_CATEGORY_COLUMNS), tuple(rows)))
    labels = settings.labels
    if labels.source == "things" and labels.classes:
        table = read_concepts(Path(settings.paths.things or settings.paths.bids))
        member = table.columns(labels.classes)
        rows = []
        for k, name in enumerate(labels.classes):
            concepts = {concept for concept, is_in in zip(table.concepts, member[:, k], strict=True) if is_in}
            rows.append(_category_row(name, main[main["concept"].isin(concepts)]))
        title = "categories of the recipe (a trial counts in each of its own)"
        tables.append(Table(title, ("category", *_CATEGORY_COLUMNS), tuple(rows)))
    return tables


_CATEGORY_COLUMNS: Final = ("main trials", "main concepts", "test trials", "test concepts")


def _category_row(name: str, part: pd.DataFrame) -> tuple[str, ...]:
    cells = [name]
    for is_test in (0, 1):
        mine = part[part["is_test"] == is_test]
        concepts = set(mine["concept"]) - {NOT_AVAILABLE}
        cells += [f"{int(mine['n'].sum()):,}", f"{len(concepts):,}" if concepts else "-"]
    return tuple(cells)
