"""Which trials train, validate and test, by modality; checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import SettingsError, SplitError
from synapse_diffusion.splits import (
    ADAPT,
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    Split,
    check_split,
    drop_touching,
    leave_out_people,
    overlaps,
    refit_rows,
    split_blocks,
    split_concepts,
    split_people,
    split_together,
)
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.training.sources import Source, Sources
from synapse_diffusion.training.tasks import Task
from synapse_diffusion.types import Say

Fold = Mapping[str, Split]
"""Each modality's trials' parts."""


@dataclass(frozen=True)
class Stretches:
    """Store, first sample and length of all that may be read for a trial: window, baseline, random shift."""

    store: NDArray[np.int64]
    start: NDArray[np.int64]
    n_times: int


def stretches(epochs: Epochs, recipe: Recipe) -> Stretches:
    """Of every trial."""
    shift = round(recipe.train.time_shift_s * epochs.sfreq)
    start = epochs.trials["read_start"].to_numpy() - shift
    return Stretches(epochs.trials["store"].to_numpy(), start, epochs.n_read + 2 * shift)


def usable_strata(source: Source, stratum_N: NDArray[np.int64], recipe: Recipe, *, fused: bool) -> NDArray[np.int64]:
    """-1 where an epoch cannot be cut, by setting where the person responded, and for a fusion where no pair is."""
    usable = source.trials["usable"].to_numpy()
    if recipe.view.targets == "leave_out":
        usable = usable & (source.trials["is_target"].to_numpy() == 0)
    if fused:
        usable = usable & (source.pair_N >= 0)
    return np.where(usable, stratum_N, -1)


def make_folds(sources: Sources, task: Task, recipe: Recipe, say: Say) -> list[Fold]:
    """The folds, checked; says how many trials each part has and why others are left out."""
    for source in sources.of.values():
        if not source.trials["usable"].any():
            raise SplitError(
                f"none of {len(source.trials)} trials has a window of {recipe.view.start_s:g} to "
                f"{recipe.view.stop_s:g} s (view.*) inside its recording and free of bad stretches"
            )
    strata = {
        name: usable_strata(source, task.of[name].stratum_N, recipe, fused=sources.is_fusion)
        for name, source in sources.of.items()
    }
    names = task.names if task.kind == "classify" else ()
    try:
        raw = (_fused if sources.is_fusion else _single)(sources, strata, recipe, names)
    except SplitError as error:
        raise SplitError(f"{error}{_cut_off(sources, recipe)}") from None
    zero_shot = recipe.split.method == "concepts"
    for source in sources.of.values():
        for line in source.epochs.copies_said():
            say(line)
    folds: list[Fold] = []
    for number, fold in enumerate(raw):
        cleaned: dict[str, Split] = {}
        for name, split in fold.items():
            source, where = sources.of[name], stretches(sources.of[name].epochs, recipe)
            cleaned[name] = drop_touching(split, where.store, where.start, where.n_times)
            _check_left(split, cleaned[name], task.of[name].target_N, recipe)
            cleaned[name][_of_new_people(source, cleaned[name], recipe)] = ADAPT
            check_split(source.trials, cleaned[name], where.store, where.start, where.n_times, zero_shot=zero_shot)
            _check_adaptation(source, cleaned[name], strata[name], recipe)
            _report(name, number, len(raw), split, cleaned[name], sources, strata[name], say, zero_shot=zero_shot)
        _check_together(cleaned, sources)
        folds.append(cleaned)
    return folds


def _cut_off(sources: Sources, recipe: Recipe) -> str:
    """How many trials have no whole window, where it is most of them."""
    usable = np.concatenate([source.trials["usable"].to_numpy(dtype=bool) for source in sources.of.values()])
    if usable.mean() > 0.5:
        return ""
    return (
        f"; {(~usable).sum()} of {len(usable)} trials have no window of {recipe.view.start_s:g} to "
        f"{recipe.view.stop_s:g} s (view.*) inside their recording and free of bad stretches"
    )


def _check_left(split: Split, cleaned: Split, target_N: NDArray[np.int64], recipe: Recipe) -> None:
    """Raises `SplitError` where a part is lost to windows that touch held-out ones."""
    for part in (TRAIN, VALIDATION):
        before, after = split == part, cleaned == part
        lost = set(target_N[before]) - set(target_N[after]) if recipe.target.task == "classify" else before.any()
        if lost and not (recipe.target.task != "classify" and after.any()):
            raise SplitError(
                f"{before.sum() - after.sum()} of {before.sum()} {part} trials share signal with held-out ones, and of "
                "what is to be decoded none is left: hold out sequences too (split.validation_sequences, "
                "split.test_sequences), or take a shorter window (view.*)"
            )


def _single(
    sources: Sources, strata: Mapping[str, NDArray[np.int64]], recipe: Recipe, names: Sequence[str]
) -> list[dict[str, Split]]:
    [(name, source)] = sources.of.items()
    trials, settings, stratum_N = source.trials, recipe.split, strata[name]
    if settings.method == "concepts":
        split = split_concepts(trials, stratum_N, names=names, **_shares(recipe))
        splits = [leave_out_people(trials, split, settings.new_people) if settings.new_people else split]
    else:
        splits = split_blocks(trials, stratum_N, unit=settings.unit, folds=settings.folds, names=names)
    if settings.per_person:
        splits = split_people(trials, stratum_N, splits, names)
    return [{name: split} for split in splits]


def _fused(
    sources: Sources, strata: Mapping[str, NDArray[np.int64]], recipe: Recipe, names: Sequence[str]
) -> list[dict[str, Split]]:
    """One split over both modalities: a concept is on the same side in both."""
    if recipe.split.method != "concepts" or recipe.split.per_person or recipe.split.new_people:
        raise SettingsError(
            "fusion pairs people by image: split.method must be 'concepts', split.per_person false, and "
            "split.new_people empty"
        )
    free = [not _crowded(source.epochs, recipe) for source in sources.of.values()]
    tables, labels = [source.trials for source in sources.of.values()], [strata[name] for name in sources.of]
    splits = split_together(tables, labels, free=free, names=names, **_shares(recipe))
    return [dict(zip(sources.of, splits, strict=True))]


def _crowded(epochs: Epochs, recipe: Recipe) -> bool:
    """Does any trial's window overlap another's?"""
    where = stretches(epochs, recipe)
    return overlaps(where.store, where.start, where.n_times)


def _shares(recipe: Recipe) -> dict[str, Any]:
    settings = recipe.split
    return {
        "dataset_test": settings.test == "dataset",
        "concept_shares": (settings.validation_concepts, settings.test_concepts),
        "sequence_shares": (settings.validation_sequences, settings.test_sequences),
        "rng": np.random.default_rng(settings.seed),
    }


def _check_together(fold: Fold, sources: Sources) -> None:
    """A concept on two sides of the two modalities would be a leak that neither table shows alone."""
    if len(fold) < 2:
        return
    sides: dict[str, str] = {}
    for name, split in fold.items():
        concept = sources.of[name].trials["concept"].to_numpy(dtype=str)
        for part in (TRAIN, VALIDATION, TEST):
            for what in set(concept[split == part]) - {"n/a"}:
                if sides.setdefault(what, part) != part:
                    raise SplitError(f"leak: concept {what} is in the {sides[what]} and, of {name}, in the {part} part")


def _report(
    name: str, number: int, n_folds: int, before: Split, split: Split, sources: Sources,
    stratum_N: NDArray[np.int64], say: Say, *, zero_shot: bool,
) -> None:  # fmt: skip
    trials = sources.of[name].trials
    of = f"{name}: " if sources.is_fusion else ""
    if number == 0:
        copied = trials["store"].isin(list(sources.of[name].epochs.copies)).to_numpy()
        touch = ~trials["usable"].to_numpy() & ~copied
        say(
            f"{of}{len(trials)} trials: {int(touch.sum())} touch a bad stretch or the recording's ends, "
            f"{int((stratum_N >= 0).sum())} of the others are decoded"
        )
    parts = [part for part in (TRAIN, VALIDATION, TEST, ADAPT) if part != ADAPT or (split == ADAPT).any()]
    counts = ", ".join(f"{part} {int((split == part).sum())}" for part in parts)
    concepts = ", ".join(str(len(set(trials["concept"][split == part]))) for part in parts)
    touching = int(((before != UNUSED) & (split == UNUSED)).sum())
    more = f" of {concepts} concepts" if zero_shot else f"; {touching} touched another part's window"
    say(of + (f"fold {number + 1}: " if n_folds > 1 else "") + counts + more)


def final_rows(
    source: Source, stratum_N: NDArray[np.int64], split: Split, recipe: Recipe, *, fused: bool
) -> NDArray[np.int64]:
    """All trials that share nothing with the test part: for the final fit. New people stay unknown to it."""
    usable = usable_strata(source, stratum_N, recipe, fused=fused)
    usable = np.where(source.trials["person"].isin(recipe.split.new_people), -1, usable)
    return _apart_from_test(source, usable, split, recipe)


def check_final(rows: Mapping[str, NDArray[np.int64]], fold: Fold, sources: Sources, recipe: Recipe) -> None:
    """Raise `SplitError` if a final fit on these rows would share an image, concept or sample of signal with test."""
    sides: dict[str, Split] = {}
    for name, source in sources.of.items():
        where, zero_shot = stretches(source.epochs, recipe), recipe.split.method == "concepts"
        sides[name] = np.where(fold[name] == TEST, TEST, UNUSED).astype("<U10")
        if n_test := int((sides[name][rows[name]] == TEST).sum()):
            raise SplitError(f"leak: {n_test} test trials of {name} would be in the final fit")
        sides[name][rows[name]] = TRAIN
        check_split(source.trials, sides[name], where.store, where.start, where.n_times, zero_shot=zero_shot)
    _check_together(sides, sources)


def _of_new_people(source: Source, split: Split, recipe: Recipe) -> NDArray[np.int64]:
    """All trials of new people that share nothing with the test part, whether they have a class or not."""
    if not recipe.split.new_people:
        return np.empty(0, np.int64)
    new = source.trials["person"].isin(recipe.split.new_people).to_numpy()
    usable = usable_strata(source, np.where(new, 0, -1), recipe, fused=False)
    return _apart_from_test(source, usable, split, recipe)


def _check_adaptation(source: Source, split: Split, stratum_N: NDArray[np.int64], recipe: Recipe) -> None:
    """Raise `SplitError` where a new person has too few labelled trials, or a decoder no weights of people's own."""
    most = max(recipe.split.adapt_trials, default=0)
    person_N = source.trials["person"].to_numpy(dtype=str)
    if most and len(set(person_N[split == TRAIN])) < 2:
        raise SplitError(
            "split.adapt_trials: one person is trained, and a decoder of one has no weights of people's own; train on "
            "two or more"
        )
    for person in recipe.split.new_people if most else ():
        there = int(np.sum((split == ADAPT) & (stratum_N >= 0) & (person_N == person)))
        if there < most:
            raise SplitError(
                f"split.adapt_trials = {most}, but {person} has {there} labelled trials that share nothing with the "
                "test part; ask for fewer"
            )


def _apart_from_test(source: Source, stratum_N: NDArray[np.int64], split: Split, recipe: Recipe) -> NDArray[np.int64]:
    where, zero_shot = stretches(source.epochs, recipe), recipe.split.method == "concepts"
    return refit_rows(source.trials, stratum_N, split, where.store, where.start, where.n_times, zero_shot=zero_shot)
