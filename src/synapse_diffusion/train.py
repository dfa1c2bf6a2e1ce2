"""Stores -> a trained decoder: splits, scalers, checkpoints, validation predictions. Test data stay shut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from synapse_diffusion.bids import read_concepts
from synapse_diffusion.config import LabelSettings, Recipe
from synapse_diffusion.errors import DataError, SplitError
from synapse_diffusion.losses import calibrated_loss, class_weights
from synapse_diffusion.models.base import Decoder, Shape
from synapse_diffusion.models.linear import LinearDecoder, bin_widths, fit_linear
from synapse_diffusion.parallel import choose_device, use_threads
from synapse_diffusion.runs import Run, prediction_table, prepare_run
from synapse_diffusion.splits import (
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    Split,
    check_split,
    drop_touching,
    refit_rows,
    split_blocks,
    split_concepts,
    split_people,
)
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.data import ScaledEpochs, accepted, fit_limits, fit_scalers, open_epochs, open_stores
from synapse_diffusion.training.decoders import (
    build,
    load_linear,
    load_network,
    network_log_probability,
    save_linear,
    save_network,
    shape_of,
)
from synapse_diffusion.training.loop import Labelled, fit
from synapse_diffusion.types import Progress, Say

SPLIT_COLUMNS = ["trial_id", "person", "session", "run", "image_id", "concept", "fold", "split", "class"]
LINEAR_TRIALS = 20_000


@dataclass(frozen=True)
class _Task:
    """What all folds share."""

    recipe: Recipe
    run: Run
    epochs: Epochs
    classes: tuple[str, ...]
    label_N: NDArray[np.int64]
    person_N: NDArray[np.int64]
    shape: Shape


def train(recipe: Recipe, name: str, command: str, say: Say, progress: Progress) -> Run:
    """Train the decoder and its linear baseline on every fold; goes on where an earlier call was stopped.

    Raises `StoreError`, `SplitError`, `DataError`. Returns the run.
    """
    use_threads(recipe.execution.threads)
    stores = open_stores(recipe, progress)
    epochs = open_epochs(stores, recipe, choose_device(recipe.execution.device))
    classes, label_N = label_trials(epochs.trials, recipe.labels, _concept_folder(recipe))
    splits = make_splits(epochs, label_N, recipe, say)
    person_of = number_people(epochs.trials, per_person=recipe.split.per_person)
    person_N = epochs.trials["person"].map(person_of).to_numpy(dtype=np.int64)
    n_people = max(person_of.values()) + 1
    shape = shape_of(epochs, len(classes), n_people)
    about = {"classes": classes, "people": person_of, "channels": epochs.channels, "shape": shape.__dict__}
    run = prepare_run(recipe, name, stores, command, about)
    _write_splits(run, epochs.trials, label_N, splits)
    task = _Task(recipe, run, epochs, classes, label_N, np.asarray(person_N, dtype=np.int64), shape)
    predictions, curves = [], []
    for fold, split in enumerate(splits):
        table, curve = _train_fold(task, fold, split, _Bar(progress, len(splits), recipe))
        predictions.append(table)
        curves.append(curve)
    run.write_predictions(VALIDATION, pd.concat(predictions, ignore_index=True))
    write_table(pd.concat(curves, ignore_index=True), run.folder / "curve.tsv")
    return run


class _Bar:
    """Progress over all folds, fits and checks."""

    def __init__(self, progress: Progress, n_folds: int, recipe: Recipe) -> None:
        self._progress, self._settings = progress, recipe.train
        self._per_fit = recipe.train.checks
        self._total = n_folds * recipe.train.members * (2 if recipe.train.refit else 1) * self._per_fit
        self._fits_a_fold = self._total // n_folds // self._per_fit

    def of(self, fold: int, fit: int) -> Callable[[int, dict[str, float]], None]:
        """What the loop calls at each check of a fold's n-th fit."""
        done = (fold * self._fits_a_fold + fit) * self._per_fit

        def on_check(step: int, row: dict[str, float]) -> None:
            accuracy = row["validation_balanced_accuracy"]
            what = "final fit" if np.isnan(accuracy) else f"training, validation balanced accuracy {accuracy:.3f}"
            self._progress(what, done + round(step / self._settings.steps * self._per_fit), self._total)

        return on_check


def number_people(trials: pd.DataFrame, *, per_person: bool) -> dict[str, int]:
    """Index of each person's own weights; all 0 where every person has a decoder of their own."""
    people = sorted(set(trials["person"]))
    return {person: 0 if per_person else k for k, person in enumerate(people)}


def label_trials(
    trials: pd.DataFrame, labels: LabelSettings, concept_folder: Path
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and each trial's class (N,), -1 for none. Raises `DataError` for a class that is not there."""
    if labels.source == "column":
        column = trials["label"].to_numpy(dtype=str)
        there = sorted(set(column) - {"n/a"})
        classes = labels.classes or tuple(there)
        if missing := [name for name in classes if name not in there]:
            found = ", ".join(there) or "none (name the column in data.events.label)"
            raise DataError(f"labels.classes: no trial has the label {', '.join(missing)}; there are {found}")
        member = np.stack([column == name for name in classes], axis=1)
    else:
        if not labels.classes:
            raise DataError('labels.classes is empty; name two or more categories, e.g. ["fruit", "furniture"]')
        table = read_concepts(concept_folder)
        classes = labels.classes
        of_concept = dict(zip(table.concepts, table.columns(classes), strict=True))
        concept = trials["concept"].to_numpy(dtype=str)
        if unknown := sorted(set(concept) - set(of_concept) - {"n/a"}):
            raise DataError(
                f"{concept_folder}: the concept table lacks {', '.join(unknown[:5])} ({len(unknown)} in all)"
            )
        none = np.zeros(len(classes), bool)
        member = np.stack([of_concept.get(name, none) for name in concept])
    if len(classes) < 2:
        raise DataError(f"labels.classes: {', '.join(classes) or 'none'}; a decision needs two or more")
    label_N = np.where(member.any(1), member.argmax(1), -1)
    if labels.several == "leave_out":
        label_N[member.sum(1) > 1] = -1
    return classes, label_N


def make_splits(epochs: Epochs, label_N: NDArray[np.int64], recipe: Recipe, say: Say) -> list[Split]:
    """The folds, checked; says how many trials each part has and why others are left out."""
    trials, settings = epochs.trials, recipe.split
    usable = trials["usable"].to_numpy()
    label_N = _usable_labels(trials, label_N, recipe)
    zero_shot = settings.method == "concepts"
    if zero_shot:
        splits = [
            split_concepts(
                trials,
                label_N,
                dataset_test=settings.test == "dataset",
                concept_shares=(settings.validation_concepts, settings.test_concepts),
                sequence_shares=(settings.validation_sequences, settings.test_sequences),
                rng=np.random.default_rng(settings.seed),
            )
        ]
    else:
        splits = split_blocks(trials, label_N, unit=settings.unit, folds=settings.folds)
    if settings.per_person:
        splits = split_people(trials, label_N, splits)
    where = _stretches(epochs, recipe)
    cleaned = [drop_touching(split, *where) for split in splits]
    for split in cleaned:
        check_split(trials, split, *where, zero_shot=zero_shot)
    say(
        f"{len(trials)} trials: {int((~usable).sum())} touch a bad stretch or the recording's ends, "
        f"{int((label_N >= 0).sum())} of the others have a class"
    )
    for fold, (before, split) in enumerate(zip(splits, cleaned, strict=True)):
        counts = ", ".join(f"{part} {int((split == part).sum())}" for part in (TRAIN, VALIDATION, TEST))
        concepts = ", ".join(str(len(set(trials["concept"][split == part]))) for part in (TRAIN, VALIDATION, TEST))
        touching = int(((before != UNUSED) & (split == UNUSED)).sum())
        of = f" of {concepts} concepts" if zero_shot else f"; {touching} touched another part's window"
        say((f"fold {fold + 1}: " if len(splits) > 1 else "") + counts + of)
    return cleaned


def _usable_labels(trials: pd.DataFrame, label_N: NDArray[np.int64], recipe: Recipe) -> NDArray[np.int64]:
    """-1 where an epoch cannot be cut, and by setting where the person responded."""
    usable = trials["usable"].to_numpy()
    if recipe.view.targets == "leave_out":
        usable = usable & (trials["is_target"].to_numpy() == 0)
    return np.where(usable, label_N, -1)


def _stretches(epochs: Epochs, recipe: Recipe) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Store, first sample and length of all that may be read for a trial: window, baseline, random shift."""
    shift = round(recipe.train.time_shift_s * epochs.sfreq)
    start = epochs.trials["read_start"].to_numpy() - shift
    return epochs.trials["store"].to_numpy(), start, epochs.n_read + 2 * shift


def _concept_folder(recipe: Recipe) -> Path:
    return Path(recipe.paths.things or recipe.paths.bids)


def _write_splits(run: Run, trials: pd.DataFrame, label_N: NDArray[np.int64], splits: Sequence[Split]) -> None:
    tables = []
    for fold, split in enumerate(splits):
        used = split != UNUSED
        tables.append(trials.loc[used].assign(**{"fold": fold, "split": split[used], "class": label_N[used]}))
    write_table(pd.concat(tables)[SPLIT_COLUMNS], run.folder / "splits.tsv")


def _labelled(task: _Task, rows: NDArray[np.int64], fold: int, *, shuffled: bool) -> Labelled:
    """Rows with their classes; as a control, the classes dealt anew among concepts (or among trials)."""
    label_N = task.label_N[rows]
    if shuffled:
        concept = task.epochs.trials["concept"].to_numpy(dtype=str)[rows]
        by_trial = task.recipe.split.method == "blocks"
        unit = np.arange(len(rows)) if by_trial else np.unique(concept, return_inverse=True)[1]
        _, first, index = np.unique(unit, return_index=True, return_inverse=True)
        rng = np.random.default_rng([task.recipe.train.seed, fold, len(rows)])
        label_N = deal_labels(label_N[first], rng)[index]
    return Labelled(rows, label_N, task.person_N[rows])


def deal_labels(label_U: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Labels (U,) dealt anew so that every true class receives all labels in their proportions.

    A plain permutation is correlated with the truth by accident (1 / sqrt(U)), enough for a decoder to learn from.
    """
    interleaved_key = np.empty(len(label_U))
    for label in np.unique(label_U):
        mine = np.flatnonzero(label_U == label)
        interleaved_key[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    spread = label_U[np.argsort(interleaved_key, kind="stable")]
    order = np.lexsort([rng.random(len(label_U)), label_U])  # by true class, at random within
    dealt = np.empty_like(label_U)
    dealt[order] = spread
    return dealt


def _train_fold(task: _Task, fold: int, split: Split, bar: _Bar) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Network members and linear baseline of one fold; their validation predictions and training curves."""
    recipe, epochs = task.recipe, task.epochs
    rows = {part: np.flatnonzero(split == part) for part in (TRAIN, VALIDATION)}
    stage = f"fold{fold}"
    limits = fit_limits(epochs, rows[TRAIN], recipe.view, recipe.train.seed)
    task.run.add_limits(stage, limits)
    rows = {part: accepted(epochs, r, recipe.view, limits) for part, r in rows.items()}
    for part, kept in rows.items():
        if set(task.label_N[kept]) != set(range(len(task.classes))):
            raise SplitError(
                f"view.reject = {recipe.view.reject!r} leaves the {part} part without some class; the limits are "
                + ", ".join(f"{limit:.3g}" for limit in limits.values())
            )
    data = _scaled(task, rows[TRAIN], stage)
    training = _labelled(task, rows[TRAIN], fold, shuffled=recipe.labels.shuffled)
    validation = _labelled(task, rows[VALIDATION], fold, shuffled=recipe.labels.shuffled)
    members, curves = [], []
    for member in range(recipe.train.members):
        model, curve = _member(task, data, training, validation, (fold, member, 0), stage, bar.of(fold, member))
        members.append(model)
        curves.append(curve.assign(fold=fold, member=member))
    linear = _linear(task, data, training, validation, stage)
    if recipe.train.refit:
        _refit(task, fold, split, linear, [_best_step(curve) for curve in curves], bar)
    x_NCT, who = data.read_all(validation.rows), validation.person_N
    log_p = {
        recipe.model.name: network_log_probability(members, x_NCT, who),
        "linear": linear.log_probability(x_NCT.cpu().numpy(), who),
    }
    truth, trials = task.label_N[validation.rows], epochs.trials.iloc[validation.rows]
    tables = [prediction_table(trials, values, truth, task.classes, name, fold, 1) for name, values in log_p.items()]
    return pd.concat(tables, ignore_index=True), pd.concat(curves, ignore_index=True)


def _scaled(task: _Task, rows: NDArray[np.int64], stage: str) -> ScaledEpochs:
    """Epochs under scalers that are fitted on these rows and kept in the run."""
    recipe = task.recipe
    fitted = fit_scalers(task.epochs, rows, task.label_N, recipe.view, stage, recipe.train.seed)
    task.run.add_scalers(fitted)
    return ScaledEpochs(task.epochs, fitted, stage, recipe.view)


def _best_step(curve: pd.DataFrame) -> int:
    return int(curve["step"].to_numpy()[curve["validation_loss"].to_numpy().argmin()])


def _refit(task: _Task, fold: int, split: Split, linear: LinearDecoder, steps: Sequence[int], bar: _Bar) -> None:
    """Both decoders anew on everything that shares nothing with the test part, all choices kept."""
    recipe, epochs, stage = task.recipe, task.epochs, f"fold{fold}_refit"
    trials = epochs.trials
    usable_label = _usable_labels(trials, task.label_N, recipe)
    where = _stretches(epochs, recipe)
    rows = refit_rows(trials, usable_label, split, *where, zero_shot=recipe.split.method == "concepts")
    rows = accepted(epochs, rows, recipe.view, task.run.read_limits(f"fold{fold}"))
    data = _scaled(task, rows, stage)
    everything = _labelled(task, rows, fold, shuffled=recipe.labels.shuffled)
    for member, n_steps in enumerate(steps):
        on_check = bar.of(fold, recipe.train.members + member)
        _member(task, data, everything, None, (fold, member, 1), stage, on_check, n_steps)
    path = task.run.checkpoint(f"{stage}_linear")
    if not path.exists():
        decoder = _fit_linear_on(task, data, everything, linear.width, pooled=linear.pooled)
        save_linear(decoder or linear, path)


def _member(
    task: _Task,
    data: ScaledEpochs,
    training: Labelled,
    validation: Labelled | None,
    key: tuple[int, ...],
    stage: str,
    on_check: Callable[[int, dict[str, float]], None],
    n_steps: int | None = None,
) -> tuple[Decoder, pd.DataFrame]:
    """One trained network and its curve; read back if an earlier call finished it."""
    recipe, device = task.recipe, task.epochs.device
    path = task.run.checkpoint(f"{stage}_member{key[1]}")
    curve_path = path.with_suffix(".tsv")
    if path.exists() and curve_path.exists():
        return load_network(path, task.shape, recipe.model, device), pd.read_csv(curve_path, sep="\t")
    key = (recipe.train.seed, *key)
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    model = build(task.shape, recipe.model)
    unfinished = task.run.checkpoint(f"{stage}_member{key[2]}_unfinished")
    n_classes = len(task.classes)
    curve = pd.DataFrame(
        fit(model, data, training, validation, recipe.train, n_classes, key, unfinished, on_check, n_steps)
    )
    write_table(curve, curve_path)
    save_network(model, path)
    unfinished.unlink(missing_ok=True)
    return model, curve


def _linear(task: _Task, data: ScaledEpochs, training: Labelled, validation: Labelled, stage: str) -> LinearDecoder:
    """The best of the baseline's choices (bin width; one for all people or one each) by validation loss."""
    path = task.run.checkpoint(f"{stage}_linear")
    if path.exists():
        return load_linear(path)
    validation_NCT = data.read_all(validation.rows).cpu().numpy()
    truth, shape = validation.label_N, task.shape
    truth_N = torch.from_numpy(truth)
    weight_K = class_weights(truth_N, shape.n_outputs)
    best: tuple[float, LinearDecoder] | None = None
    for width in bin_widths(shape.n_sensors, shape.n_times, shape.sfreq):
        for pooled in (True, False) if shape.n_people > 1 else (True,):
            decoder = _fit_linear_on(task, data, training, width, pooled=pooled)
            if decoder is None:
                continue
            log_p = decoder.log_probability(validation_NCT, validation.person_N)
            loss = calibrated_loss(torch.from_numpy(log_p), truth_N, weight_K)
            if best is None or loss < best[0]:
                best = (loss, decoder)
    if best is None:
        raise SplitError("some class has fewer than two training trials; more recordings or other classes are needed")
    save_linear(best[1], path)
    return best[1]


def _fit_linear_on(
    task: _Task, data: ScaledEpochs, training: Labelled, width: int, *, pooled: bool
) -> LinearDecoder | None:
    rng = np.random.default_rng([task.recipe.train.seed, len(training.rows)])
    some = np.sort(rng.permutation(len(training.rows))[:LINEAR_TRIALS])
    x_NCT = data.read_all(training.rows[some]).cpu().numpy()
    people = training.person_N[some]
    shape = task.shape
    return fit_linear(x_NCT, training.label_N[some], people, shape.n_outputs, shape.n_people, width, pooled=pooled)
