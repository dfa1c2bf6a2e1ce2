"""Who trains, who validates, who tests; and the checks that no one is on two sides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.errors import SplitError

TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"
ADAPT: Final = "adapt"
"""Trials of a person whom training never meets that share nothing with the test part."""
UNUSED: Final = ""
FINAL_ONLY: Final = "unused"
"""In tables: of no part of a fold, but of what its final fit trains on."""
Split = NDArray[np.str_]
"""One of the five words a trial."""


def split_concepts(
    trials: pd.DataFrame,
    label_N: NDArray[np.int64],
    *,
    dataset_test: bool,
    concept_shares: tuple[float, float],
    sequence_shares: tuple[float, float],
    rng: np.random.Generator,
    names: Sequence[str] = (),
    free: NDArray[np.bool_] | None = None,
) -> Split:
    """Held-out concepts inside held-out sequences; training on other concepts in other sequences.

    Under RSVP a 1 s window holds ten pictures: holding out concepts alone would leave every training window
    next to a held-out one. Shares are (validation, test), of each class's concepts and of all sequences; where no
    window overlaps another (MEG), sequence shares of 0 hold out no sequences: such a part's concepts are its wherever
    they were shown.
    `label_N` is -1 for trials of no class. With `dataset_test` the data set's own test images are the test
    part, and their concepts leave training and validation. `free` trials, whose windows touch no other, may be in any
    sequence. Raises `SplitError` where a part stays empty, or lacks one of the classes, whose `names` are given where
    labels are classes.
    """
    concept = trials["concept"].to_numpy(dtype=str)
    is_test = trials["is_test"].to_numpy() == 1
    labelled = (label_N >= 0) & (trials["is_catch"].to_numpy() == 0)
    if dataset_test and not is_test.any():
        raise SplitError("split.test = 'dataset', but no trial is marked as a test image (data.events.is_test)")
    reserved = set(concept[is_test]) if dataset_test else set()
    parts: dict[str, set[str]] = {TRAIN: set(), VALIDATION: set(), TEST: set(reserved)}
    for label in np.unique(label_N[labelled]):
        of_class = sorted(set(concept[labelled & ~is_test & (label_N == label)]) - reserved)
        order = [of_class[k] for k in rng.permutation(len(of_class))]
        n_validation = max(1, round(concept_shares[0] * len(order)))
        n_test = 0 if dataset_test else max(1, round(concept_shares[1] * len(order)))
        if len(order) < n_validation + n_test + 1:
            raise SplitError(
                f"{names[label] if names else 'the study'} has {len(order)} concepts outside the test images, too few "
                "for training, validation and test; choose other classes or split.method = 'blocks'"
            )
        parts[VALIDATION].update(order[:n_validation])
        parts[TEST].update(order[n_validation : n_validation + n_test])
        parts[TRAIN].update(order[n_validation + n_test :])
    shares = (sequence_shares[0], 0.0 if dataset_test else sequence_shares[1])
    bound = ~is_test if free is None else ~is_test & ~free
    stretch = _sequence_parts(trials, bound, shares, rng) if any(shares) and bound.any() else None
    split = np.full(len(trials), UNUSED, dtype="<U10")
    for part in (TRAIN, VALIDATION, TEST):
        if part == TEST and dataset_test:
            split[labelled & is_test] = TEST
            continue
        here = labelled & ~is_test & np.isin(concept, sorted(parts[part]))
        anywhere = stretch is None or (part != TRAIN and not shares[part == TEST])
        split[here if anywhere else here & ((stretch == part) | ~bound)] = part
    _require_all(split, label_N, names)
    return split


def split_together(
    tables: Sequence[pd.DataFrame],
    labels: Sequence[NDArray[np.int64]],
    free: Sequence[bool] = (),
    **options: Any,
) -> list[Split]:
    """`split_concepts` over several data sets at once (the combined set's EEG and MEG): a concept is on the same
    side in all of them. Sequences are dealt for each data set's people apart; not in those that are `free`."""
    tagged = [table.assign(person=f"{k}/" + table["person"].astype(str)) for k, table in enumerate(tables)]
    exempt = np.concatenate([
        np.full(len(table), bool(free and free[k])) for k, table in enumerate(tables)
    ])  # fmt: skip
    split = split_concepts(pd.concat(tagged, ignore_index=True), np.concatenate(labels), free=exempt, **options)
    return list(np.split(split, np.cumsum([len(table) for table in tables])[:-1]))


def _sequence_parts(
    trials: pd.DataFrame, main: NDArray[np.bool_], shares: tuple[float, float], rng: np.random.Generator
) -> Split:
    """Each trial's part by its sequence, drawn for each person apart."""
    part = np.full(len(trials), UNUSED, dtype="<U10")
    keys = _joined(trials, ["person", "session", "run", "sequence"])
    people = trials["person"].to_numpy(dtype=str)
    for person in np.unique(people[main]):
        mine = main & (people == person)
        names = np.unique(keys[mine])
        n_validation, n_test = (max(1, round(share * len(names))) if share else 0 for share in shares)
        if len(names) < n_validation + n_test + 1:
            raise SplitError(
                f"sub-{person} has {len(names)} sequences, too few to hold some out; name data.events.sequence, or "
                "take split.method = 'blocks'"
            )
        names = names[rng.permutation(len(names))]
        part[mine] = TRAIN
        part[mine & np.isin(keys, names[:n_validation])] = VALIDATION
        part[mine & np.isin(keys, names[n_validation : n_validation + n_test])] = TEST
    return part


def natural_order(names: pd.Series[str]) -> NDArray[np.int64]:
    """Rank of each name where numbers in it count as numbers: run 2 before run 10."""
    different, which_N = np.unique(names.to_numpy(dtype=str), return_inverse=True)
    keys = [[(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]
            for name in different]  # fmt: skip
    rank = np.empty(len(keys), np.int64)
    rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return rank[which_N]


def _joined(trials: pd.DataFrame, names: Sequence[str]) -> NDArray[np.str_]:
    """Each trial's values of these columns in one word."""
    text = trials[list(names)].astype(str)
    return text[names[0]].str.cat(text[list(names[1:])], sep="/").to_numpy(dtype=str)


def split_blocks(
    trials: pd.DataFrame, label_N: NDArray[np.int64], *, unit: str, folds: int, names: Sequence[str] = ()
) -> list[Split]:
    """Cross-validation over contiguous stretches of each person's trials, in the order recorded.

    Fold `f` tests on stretch `f` and validates on the next. `unit` `block` cuts the trials into `folds` equal
    stretches; `run` and `session` never cut one. Raises `SplitError` where there are fewer than three, or a part
    lacks one of the classes, whose `names` are given where labels are classes.
    """
    stretch = np.full(len(trials), -1)
    labelled = (label_N >= 0) & (trials["is_catch"].to_numpy() == 0)
    people = trials["person"].to_numpy(dtype=str)
    counts = []
    for person in np.unique(people[labelled]):
        rows = np.flatnonzero(labelled & (people == person))
        mine = trials.iloc[rows]
        order = np.lexsort(
            [mine["onset_sample"].to_numpy(), natural_order(mine["run"]), natural_order(mine["session"])]
        )
        rows = rows[order]
        if unit == "block":
            pieces = np.array_split(rows, folds)
        else:
            key = _joined(trials.iloc[rows], ["session"] if unit == "session" else ["session", "run"])
            found = list(dict.fromkeys(key))
            groups = np.array_split(np.arange(len(found)), min(folds, len(found)))
            pieces = [rows[np.isin(key, [found[k] for k in group])] for group in groups]
        if len(pieces) < 3:
            raise SplitError(
                f"sub-{person} has {len(pieces)} {unit}s; cross-validation needs three: take split.unit = 'block'"
            )
        for k, piece in enumerate(pieces):
            stretch[piece] = k
        counts.append(len(pieces))
    splits = []
    for fold in range(max(counts, default=0)):
        split = np.full(len(trials), UNUSED, dtype="<U10")
        for person, n in zip(np.unique(people[labelled]), counts, strict=True):
            mine = labelled & (people == person)
            split[mine] = TRAIN
            if fold < n:
                split[mine & (stretch == fold)] = TEST
            split[mine & (stretch == (fold + 1) % n)] = VALIDATION if fold < n else TRAIN
        _require_all(split, label_N, names)
        splits.append(split)
    if not splits:
        raise SplitError("no trial has a class; check labels.source and labels.classes")
    return splits


def split_people(
    trials: pd.DataFrame, label_N: NDArray[np.int64], splits: list[Split], names: Sequence[str] = ()
) -> list[Split]:
    """Each split once for each person, without the others' trials."""
    people = trials["person"].to_numpy(dtype=str)
    apart = [
        np.where(people == person, split, UNUSED)
        for person in np.unique(people[label_N >= 0])
        for split in splits
        if np.any((people == person) & (split == TEST))
    ]
    for split in apart:
        _require_all(split, label_N, names)
    return apart


def leave_out_people(trials: pd.DataFrame, split: Split, people: Sequence[str]) -> Split:
    """The split with these people in the test part only, and nobody else in it: how a decoder meets a new person.

    Raises `SplitError` for a person without trials, or where nobody is left to train on.
    """
    person = trials["person"].to_numpy(dtype=str)
    if missing := sorted(set(people) - set(person)):
        raise SplitError(
            f"split.new_people: no trial of {', '.join(missing)}; there are {', '.join(sorted(set(person)))}"
        )
    new = np.isin(person, people)
    out = split.copy()
    out[new & (split != TEST)] = UNUSED
    out[~new & (split == TEST)] = UNUSED
    for part in (TRAIN, VALIDATION, TEST):
        if not (out == part).any():
            raise SplitError(f"split.new_people = {', '.join(people)} leaves the {part} part empty; name fewer people")
    return out


def _require_all(split: Split, label_N: NDArray[np.int64], names: Sequence[str]) -> None:
    labels = set(np.unique(label_N[label_N >= 0]).tolist())
    if not labels:
        raise SplitError("no trial has a class; check labels.source and labels.classes")
    for part in (TRAIN, VALIDATION, TEST):
        lacking = labels - set(np.unique(label_N[split == part]).tolist())
        if names and lacking:
            raise SplitError(
                f"the {part} part has no trial of {', '.join(names[k] for k in sorted(lacking))}; larger shares "
                "(split.*), more recordings, or other classes (labels.classes) would give some"
            )
        if not (split == part).any():
            raise SplitError(f"the {part} part is empty; larger shares (split.*) or more recordings would fill it")


def overlaps(store: NDArray[np.int64], start: NDArray[np.int64], n_times: int) -> bool:
    """Does any trial's window share a sample with another trial's of the same recording?"""
    order = np.lexsort([start, store])
    near = (np.diff(start[order]) < n_times) & (np.diff(store[order]) == 0)
    return bool(near.any())


def drop_touching(split: Split, store: NDArray[np.int64], start: NDArray[np.int64], n_times: int) -> Split:
    """The split less every training (validation) trial whose window shares a sample with a held-out one's."""
    out = split.copy()
    for part, against in ((TRAIN, (VALIDATION, TEST)), (VALIDATION, (TEST,))):
        held = np.isin(out, against)
        out[(out == part) & _touches(store, start, n_times, held)] = UNUSED
    return out


def refit_rows(
    trials: pd.DataFrame,
    label_N: NDArray[np.int64],
    split: Split,
    store: NDArray[np.int64],
    start: NDArray[np.int64],
    n_times: int,
    *,
    zero_shot: bool,
) -> NDArray[np.int64]:
    """All trials that share nothing with the test part: what a final fit may use once choices are made.

    That is training and validation, and the trials that only had to stay out of both (training concepts in
    validation sequences, and so on).
    """
    test = split == TEST
    people = trials["person"].to_numpy(dtype=str)
    allowed = np.isin(people, np.unique(people[split != UNUSED]))
    allowed &= (label_N >= 0) & ~test & (trials["is_catch"].to_numpy() == 0) & ~_touches(store, start, n_times, test)
    for what in ("image_id", "concept") if zero_shot else ("image_id",):
        key = trials[what].to_numpy(dtype=str)
        allowed &= ~np.isin(key, sorted(set(key[test]) - {"n/a"}))
    return np.flatnonzero(allowed)


def _touches(
    store: NDArray[np.int64], start: NDArray[np.int64], n_times: int, held: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Does each trial's window overlap that of a held trial of the same recording?"""
    touching = np.zeros(len(start), bool)
    for k in np.unique(store[held]):
        others = np.sort(start[held & (store == k)])
        mine = np.flatnonzero(store == k)
        at = np.searchsorted(others, start[mine])
        after = np.where(at < len(others), others[np.minimum(at, len(others) - 1)] - start[mine], n_times)
        before = np.where(at > 0, start[mine] - others[np.maximum(at - 1, 0)], n_times)
        touching[mine] = (after < n_times) | (before < n_times)
    return touching


def check_split(
    trials: pd.DataFrame,
    split: Split,
    store: NDArray[np.int64],
    start: NDArray[np.int64],
    n_times: int,
    *,
    zero_shot: bool,
) -> None:
    """Raise `SplitError` if an image, a concept (zero-shot) or a sample of signal is on two sides."""
    image, concept = trials["image_id"].to_numpy(dtype=str), trials["concept"].to_numpy(dtype=str)
    for a, b in ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST), (ADAPT, TEST)):
        for what, key in (("image", image), ("concept", concept)):
            if what == "concept" and not zero_shot:
                continue
            shared = (set(key[split == a]) & set(key[split == b])) - {"n/a"}
            if shared:
                raise SplitError(
                    f"leak: {what} {sorted(shared)[0]} is in the {a} and in the {b} part ({len(shared)} are); where "
                    "images repeat, split.method = 'concepts' keeps them apart"
                )
        touching = (split == a) & _touches(store, start, n_times, split == b)
        if touching.any():
            trial = trials["trial_id"].iloc[int(np.flatnonzero(touching)[0])]
            raise SplitError(
                f"leak: the window of {a} trial {trial} overlaps one of the {b} part ({touching.sum()} do)"
            )
