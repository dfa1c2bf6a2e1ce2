"""Data quality: which trials were used and which not, bad channels, the evoked response."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synapse_diffusion.errors import SynapseError
from synapse_diffusion.info import settings_for
from synapse_diffusion.info.evoked import plot_evoked
from synapse_diffusion.report.contents import Contents
from synapse_diffusion.report.words import some
from synapse_diffusion.splits import FINAL_ONLY, TEST, TRAIN, VALIDATION
from synapse_diffusion.types import Progress

MOST_ROWS: Final = 60


@dataclass(frozen=True)
class Table:
    """A caption, names of columns, and rows of text; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def trials_table(contents: Contents) -> Table:
    """One row a recording: what became of its trials, and its bad channels."""
    used = _used(contents)
    rows = [_row(contents, name, used) for name in contents.provenance["stores"]]
    more = f" The first {MOST_ROWS} of {len(rows)} recordings." if len(rows) > MOST_ROWS else ""
    folds = contents.splits["fold"].nunique()
    more += f" A trial counts once a split over {folds} folds." if folds > 1 else ""
    caption = (
        "Trials of each recording. Not used: targets, no label or picture among those asked for, a window that a bad "
        "stretch or the end cuts, left out by the split, or rejected "
        f"(view.reject = {contents.recipe.view.reject}).{more}"
    )
    columns = ("recording", "event rows", "left out by convert", "stored", "of these targets", "training",
               "validation", "test", "not used", "bad channels")  # fmt: skip
    return Table(caption, columns, tuple(rows[:MOST_ROWS]))


def evoked_figure(contents: Contents, progress: Progress) -> Path | str:
    """`figures/evoked.png` of the run's stores, drawn once; or why there is none."""
    path = contents.run.folder / "figures/evoked.png"
    if path.exists():
        return path
    root = contents.at(contents.recipe.paths.stores)
    folders = [root / name for name in contents.manifests]
    reason = "the recordings (paths.stores) are not here"
    for view in (settings_for(None, ()).view, contents.recipe.view) if folders else ():
        try:
            path.parent.mkdir(exist_ok=True)
            plot_evoked(root, folders, view, path, progress)
            return path
        except SynapseError as error:
            reason = str(error)
    return reason


def _used(contents: Contents) -> dict[str, Counter[str]]:
    """By person/session/run and modality, trials by split."""
    table = contents.splits[contents.splits["split"] != FINAL_ONLY].drop_duplicates(["modality", "trial_id", "split"])
    names = table["modality"] + "/sub-" + table["person"] + "/ses-" + table["session"] + "/run-" + table["run"]
    found: dict[str, Counter[str]] = {}
    for name, split in zip(names, table["split"], strict=True):
        found.setdefault(name, Counter())[split] += 1
    return found


def _row(contents: Contents, name: str, used: dict[str, Counter[str]]) -> tuple[str, ...]:
    manifest = contents.manifests.get(name)
    store = "/".join(name.split("/")[-3:])
    modality = str(manifest["modality"]) if manifest else contents.recipe.data.modality
    mine = used.get(f"{modality}/{store}", Counter())
    splits = tuple(f"{mine[split]:,}" for split in (TRAIN, VALIDATION, TEST))
    counts = (manifest or {}).get("counts")
    if not counts:
        return (name, "n/a", "n/a", "n/a", "n/a", *splits, "n/a", "n/a")
    left = "; ".join(f"{n:,} {why}" for why, n in (counts.get("left_out") or {}).items() if n) or "0"
    bad = counts.get("bad_channels") or {}  # epochs that come cut say nothing of them
    folds = contents.splits["fold"].nunique()
    unused = f"{counts['stored'] - sum(mine.values()):,}" if folds == 1 else "n/a"
    told = some([f"{channel} ({why})" for channel, why in bad.items()], 6) if bad else "none"
    stored, targets = (f"{counts.get(key) or 0:,}" for key in ("stored", "targets"))
    return (name, f"{counts['rows']:,}", left, stored, targets, *splits, unused, told)
