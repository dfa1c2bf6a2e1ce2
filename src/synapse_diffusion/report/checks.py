"""The validity checklist: what must hold for a figure to mean what it says, with the numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd

from synapse_diffusion.errors import RunError
from synapse_diffusion.report.contents import Contents, Row
from synapse_diffusion.report.words import ALPHA, count, interval, number, repeats, some, value
from synapse_diffusion.splits import TEST, TRAIN, VALIDATION
from synapse_diffusion.store.files import content_digest

State = Literal["pass", "fail", "note"]
AT_CHANCE: Final = ("shuffled_labels", "prestimulus", "noise", "mean")
BLIND: Final = ("no_brain", "shuffled")  # controls of reconstructions


@dataclass(frozen=True)
class Check:
    """One line: what must hold, whether it does (note: not known, or for the reader to weigh), and the numbers."""

    what: str
    state: State
    numbers: str


def checks(contents: Contents) -> list[Check]:
    """All that the run's files can tell."""
    found = [_images(contents.splits), _concepts(contents), _as_trained(contents), _stores(contents)]
    found += [_at_chance(contents), *_other_controls(contents), *_blind(contents)]
    return [*found, _corrected(contents), _people(contents), _seeds(contents)]


def _images(splits: pd.DataFrame) -> Check:
    """An image on two sides of one fold would be recognised, not decoded."""
    shared = _shared(splits, "image_id")
    counts = splits.groupby("split")["image_id"].nunique()
    sides = ", ".join(f"{split} {counts.get(split, 0):,}" for split in (TRAIN, VALIDATION, TEST))
    return Check("No picture is on two sides of a split", _state(not shared), f"{shared} shared; pictures: {sides}")


def _concepts(contents: Contents) -> Check:
    splits, method = contents.splits, contents.recipe.split.method
    shared, n = _shared(splits, "concept"), splits.loc[splits["split"] == TEST, "concept"].nunique()
    state: State = "pass" if not shared else "fail" if method == "concepts" else "note"
    what = "Test concepts are in no other part, nor in the final fit"
    return Check(what, state, f"{shared} of {n} test concepts shared; split.method = {method}")


def _shared(splits: pd.DataFrame, column: str) -> int:
    """Values that test shares with training, validation or the final fit, or those two with each other, in any fold."""
    n = 0
    for _, fold in splits.groupby("fold"):
        train, validation, test = (set(fold.loc[fold["split"] == s, column]) for s in (TRAIN, VALIDATION, TEST))
        final = set(fold.loc[fold["final"].astype(str) == "1", column]) if "final" in fold else set()
        n += len(test & (train | validation | final)) + (len(train & validation) if column == "image_id" else 0)
    return n


def _as_trained(contents: Contents) -> Check:
    what = "The recipe is the one that was trained"
    try:
        contents.run.check_recipe()
    except RunError as error:
        return Check(what, "fail", str(error))
    digest = contents.provenance.get("recipe_digest", "n/a")
    return Check(what, "pass", f"recipe {str(digest)[:8]}")


def _stores(contents: Contents) -> Check:
    """Tables and signals by the checksums that their manifests name."""
    named, there = contents.provenance["stores"], contents.manifests
    changed = [name for name, manifest in there.items() if content_digest(manifest) != named[name]]
    missing = len(named) - len(there)
    numbers = f"{len(there) - len(changed)} of {len(named)} recordings unchanged since training"
    numbers += f"; {missing} not found here" if missing else ""
    numbers += f"; changed: {some(changed)}" if changed else ""
    return Check(
        "The recordings are those of the training", "fail" if changed else "note" if missing else "pass", numbers
    )


def _at_chance(contents: Contents) -> Check:
    """Controls without information; p is corrected for how many there are, as one in twenty is under .05 by luck."""
    what = "Controls without information are at chance"
    rows = [r for r in contents.scores if r["control"] in AT_CHANCE and r["person"] == "all"]
    if not rows:
        return Check(what, "note", "none was computed (evaluate.controls)")
    bad = [row for row in rows if not _is_chance(row, len(rows))]
    told = "; ".join(_told(row) for row in bad or rows)
    return Check(
        what, _state(not bad), f"{len(rows) - len(bad)} of {len(rows)} at chance; {'above: ' * bool(bad)}{told}"
    )


def _is_chance(row: Row, n: int) -> bool:
    if row["p"] is not None:
        return bool(row["p"] >= ALPHA / n)
    return row["low"] is None or bool(row["low"] <= row["chance"])


def _other_controls(contents: Contents) -> list[Check]:
    """What a reader compares: someone else's weights, and the pictures' features without a brain."""
    names = {
        "wrong_person": "Decoded with another person's weights (what people share)",
        "image_features": "The same decision from the pictures' features, without a brain",
    }
    found = []
    for control, what in names.items():
        rows = [row for row in contents.scores if row["control"] == control and row["person"] == "all"]
        if rows:
            found.append(Check(what, "note", "; ".join(f"{_told(row)}, chance {value(row, 'chance')}" for row in rows)))
    return found


def _blind(contents: Contents) -> list[Check]:
    """Pictures drawn without a brain, or from another trial's, must be identified half of the time."""
    found = []
    for control in BLIND:
        rows = [
            row for row in contents.rows
            if row["task"] == "reconstruct" and row["control"] == control and row["person"] == "all"
            if row["metric"].startswith("two_way ") and " - " not in row["model"]
        ]  # fmt: skip
        if rows:
            good = all(_is_chance(row, len(rows)) for row in rows)
            told = "; ".join(f"{row['metric']} {value(row)} ({interval(row)})" for row in rows)
            drawn = "without a brain" if control == "no_brain" else "from shuffled trials"
            found.append(Check(f"Pictures drawn {drawn} are identified at chance (50 %)", _state(good), told))
    return found


def _corrected(contents: Contents) -> Check:
    what = f"The decoder is above chance after Holm's correction (p < {ALPHA:g})"
    rows = contents.headline
    if all(row.get("p_holm") is None for row in rows):
        return Check(what, "note", "no corrected p: scored by an older version, or without permutations")
    family = [row for row in contents.rows if row["task"] == contents.task and row["person"] == "all"]
    n = sum(row.get("p_holm") is not None for row in family)
    told = "; ".join(f"{repeats(row['k_repeats'])}: p = {number(row['p_holm'])}" for row in rows)
    good = all(row["p_holm"] is not None and row["p_holm"] < ALPHA for row in rows)
    return Check(what, _state(good), f"{told}; {n} tests in the family")


def _people(contents: Contents) -> Check:
    row = contents.headline[-1]
    n = row.get("n_people") or len(contents.people)
    if row.get("low_people") is None:
        return Check("Holds over people", "note", f"{count(n, 'person') if n == 1 else f'{n} people'}: not tested")
    people = {**row, "low": row["low_people"], "high": row["high_people"]}
    note = f"; {row['note']}" if row.get("note") else ""
    good = row["low_people"] > row["chance"]
    numbers = f"{value(row)}, interval over people and pictures {interval(people)}, chance {value(row, 'chance')}{note}"
    state: State = "note" if row.get("note") and good else _state(good)
    return Check("Holds over people, not only these", state, numbers)


def _seeds(contents: Contents) -> Check:
    what = "More than one seed was trained"
    for path in sorted(contents.run.folder.resolve().parent.glob("*-seeds/seeds.json")):
        try:
            runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if contents.name in {name.rstrip("/").rpartition("/")[2] for name in runs}:
            return Check(what, _state(len(runs) > 1), f"{len(runs)} seeds; {path.parent.name}")
    return Check(what, "note", f"one seed ({contents.recipe.train.seed}); `evaluate RUN RUN ...` compares several")


def _told(row: Row) -> str:
    return f"{row['model']}, {row['control'].replace('_', ' ')}, {repeats(row['k_repeats'])}: {value(row)}"


def _state(good: bool) -> State:
    return "pass" if good else "fail"


def counted(found: Sequence[Check]) -> str:
    """How many passed and failed."""
    n = {state: sum(check.state == state for check in found) for state in ("pass", "fail", "note")}
    return f"{n['pass']} passed, {n['fail']} failed, {n['note']} to weigh"
