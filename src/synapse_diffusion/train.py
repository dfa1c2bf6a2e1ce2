"""Stores -> a trained decoder: splits, scalers, checkpoints, validation predictions. Test data stay shut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from synapse_diffusion.bids import read_concepts
from synapse_diffusion.config import LabelSettings, Recipe
from synapse_diffusion.errors import DataError
from synapse_diffusion.models.linear import LinearDecoder, bin_widths, fit_linear
from synapse_diffusion.parallel import choose_device
from synapse_diffusion.runs import Run, Scalers, prepare_run
from synapse_diffusion.splits import (
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    Split,
    check_split,
    drop_touching,
    split_blocks,
    split_concepts,
)
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.data import ScaledEpochs, below, fit_scalers, open_epochs, open_stores
from synapse_diffusion.training.decoders import (
    Shape,
    build,
    load_linear,
    load_network,
    network_log_probability,
    save_linear,
    save_network,
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
    if recipe.execution.threads:
        torch.set_num_threads(recipe.execution.threads)
    stores = open_stores(recipe, progress)
    epochs = open_epochs(stores, recipe, choose_device(recipe.execution.device))
    classes, label_N = label_trials(epochs.trials, recipe.labels, _concept_folder(recipe))
    splits = make_splits(epochs, label_N, recipe, say)
    people = sorted(set(epochs.trials["person"]))
    person_N = epochs.trials["person"].map({person: k for k, person in enumerate(people)}).to_numpy(dtype=np.int64)
    shape = Shape(len(epochs.channels), epochs.n_times, len(classes), len(people), epochs.sfreq)
    about = {"classes": classes, "people": people, "channels": epochs.channels, "shape": shape.__dict__}
    run = prepare_run(recipe, name, stores, command, about)
    _write_splits(run, epochs.trials, label_N, splits)
    task = _Task(recipe, run, epochs, classes, label_N, person_N, shape)
    predictions, curves, scalers = [], [], {}
    for fold, split in enumerate(splits):
        rows = {part: np.flatnonzero(split == part) for part in (TRAIN, VALIDATION)}
        rows = {part: r[below(epochs, r, recipe.view.reject_v)] for part, r in rows.items()}
        fold_scalers = fit_scalers(epochs, rows[TRAIN], label_N, recipe.view.scaling, fold, recipe.train.seed)
        scalers.update(fold_scalers)
        run.write_scalers(scalers)
        parts = {part: _labelled(task, r, fold, shuffled=recipe.labels.shuffled) for part, r in rows.items()}
        table, curve = _train_fold(task, fold, fold_scalers, parts, len(splits), progress)
        predictions.append(table)
        curves.append(curve)
    run.write_predictions(VALIDATION, pd.concat(predictions, ignore_index=True))
    write_table(pd.concat(curves, ignore_index=True), run.folder / "curve.tsv")
    return run


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
            raise DataError("labels.classes is empty; name two or more categories, e.g. [\"fruit\", \"furniture\"]")
        table = read_concepts(concept_folder)
        classes = labels.classes
        of_concept = dict(zip(table.concepts, table.columns(classes), strict=True))
        concept = trials["concept"].to_numpy(dtype=str)
        if unknown := sorted(set(concept) - set(of_concept) - {"n/a"}):
            raise DataError(f"{concept_folder}: the concept table lacks {', '.join(unknown[:5])} ({len(unknown)} in all)")
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
    label_N = np.where(usable, label_N, -1)
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
    where = (trials["store"].to_numpy(), trials["start"].to_numpy(), epochs.n_times)
    cleaned = [drop_touching(split, *where) for split in splits]
    for split in cleaned:
        check_split(trials, split, *where, zero_shot=zero_shot)
    say(f"{len(trials)} trials, {int((~usable).sum())} touch a bad stretch or the recording's ends, ", )
    say(f"{int((label_N >= 0).sum())} belong to exactly one class")
    for fold, (before, split) in enumerate(zip(splits, cleaned, strict=True)):
        counts = ", ".join(f"{part} {int((split == part).sum())}" for part in (TRAIN, VALIDATION, TEST))
        concepts = ", ".join(str(len(set(trials["concept"][split == part]))) for part in (TRAIN, VALIDATION, TEST))
        touching = int(((before != UNUSED) & (split == UNUSED)).sum())
        of = f" of {concepts} concepts" if zero_shot else f"; {touching} touched another part's window"
        say((f"fold {fold + 1}: " if len(splits) > 1 else "") + counts + of)
    return cleaned


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
        unit = np.arange(len(rows)) if np.all(concept == "n/a") else np.unique(concept, return_inverse=True)[1]
        _, first, index = np.unique(unit, return_index=True, return_inverse=True)
        rng = np.random.default_rng([task.recipe.train.seed, fold, len(rows)])
        label_N = label_N[first][rng.permutation(len(first))][index]
    return Labelled(rows, label_N, task.person_N[rows])


def _train_fold(
    task: _Task,
    fold: int,
    scalers: Scalers,
    parts: dict[str, Labelled],
    n_folds: int,
    progress: Progress,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Network members and linear baseline of one fold; their validation predictions and training curves."""
    recipe, run = task.recipe, task.run
    data = ScaledEpochs(task.epochs, scalers, fold, recipe.view.clamp)
    members, curves = [], []
    n_total = n_folds * recipe.train.members * recipe.train.checks
    for member in range(recipe.train.members):
        path = run.checkpoint(f"fold{fold}_member{member}")
        key = (recipe.train.seed, fold, member)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        model = build(task.shape, recipe.model).to(task.epochs.device)
        done = (fold * recipe.train.members + member) * recipe.train.checks

        def on_check(step: int, row: dict[str, float], at: int = done) -> None:
            what = f"training, validation balanced accuracy {row['validation_balanced_accuracy']:.3f}"
            progress(what, at + round(step / recipe.train.steps * recipe.train.checks), n_total)

        unfinished = run.checkpoint(f"fold{fold}_member{member}_unfinished")
        curve = fit(
            model, data, parts[TRAIN], parts[VALIDATION], recipe.train, len(task.classes), key, unfinished, on_check
        ) if not path.exists() else _old_curve(run, fold, member)  # fmt: skip
        if path.exists():
            model = load_network(path, task.shape, recipe.model, task.epochs.device)
        else:
            save_network(model, path)
            _write_curve(run, fold, member, curve)
            unfinished.unlink(missing_ok=True)
        members.append(model)
        curves.append(pd.DataFrame(curve).assign(fold=fold, member=member))
    linear = _linear(task, fold, data, parts)
    tables = []
    validation = parts[VALIDATION]
    x_NCT = data.read_all(validation.rows)
    log_p = {
        recipe.model.name: network_log_probability(members, x_NCT, validation.person_N),
        "linear": linear.log_probability(x_NCT.cpu().numpy(), validation.person_N),
    }
    truth = task.label_N[validation.rows]
    for model_name, values in log_p.items():
        tables.append(prediction_table(task.epochs.trials.iloc[validation.rows], values, truth, task.classes, model_name, fold))
    return pd.concat(tables, ignore_index=True), pd.concat(curves, ignore_index=True)


def _curve_path(run: Run, fold: int, member: int) -> Path:
    return run.checkpoint(f"fold{fold}_member{member}").with_suffix(".tsv")


def _write_curve(run: Run, fold: int, member: int, curve: list[dict[str, float]]) -> None:
    write_table(pd.DataFrame(curve), _curve_path(run, fold, member))


def _old_curve(run: Run, fold: int, member: int) -> list[dict[str, float]]:
    path = _curve_path(run, fold, member)
    return pd.read_csv(path, sep="\t").to_dict("records") if path.exists() else []  # type: ignore[return-value]


def prediction_table(
    trials: pd.DataFrame,
    log_p_NK: NDArray[np.float64],
    truth: NDArray[np.int64],
    classes: Sequence[str],
    model: str,
    fold: int,
    k_repeats: int = 1,
) -> pd.DataFrame:
    """Tidy predictions: one row a decision, a probability a class."""
    columns = ["trial_id", "person", "session", "run", "image_id", "concept"]
    table = trials[columns].reset_index(drop=True)
    table = table.assign(fold=fold, model=model, k_repeats=k_repeats)
    table["label"] = [classes[k] for k in truth]
    table["predicted"] = [classes[k] for k in log_p_NK.argmax(1)]
    for k, name in enumerate(classes):
        table[f"p({name})"] = np.round(np.exp(log_p_NK[:, k]), 6)
    return table


def _linear(task: _Task, fold: int, data: ScaledEpochs, parts: dict[str, Labelled]) -> LinearDecoder:
    """The best of the baseline's choices (bin width; one for all people or one each) by validation loss."""
    path = task.run.checkpoint(f"fold{fold}_linear")
    if path.exists():
        return load_linear(path)
    rng = np.random.default_rng([task.recipe.train.seed, fold, 3])
    some = np.sort(rng.permutation(len(parts[TRAIN].rows))[:LINEAR_TRIALS])
    rows, label_N, person_N = (v[some] for v in (parts[TRAIN].rows, parts[TRAIN].label_N, parts[TRAIN].person_N))
    x_NCT, validation_NCT = data.read_all(rows).cpu().numpy(), data.read_all(parts[VALIDATION].rows).cpu().numpy()
    truth, shape = parts[VALIDATION].label_N, task.shape
    best: tuple[float, LinearDecoder] | None = None
    for width in bin_widths(shape.n_sensors, shape.n_times, shape.sfreq):
        for pooled in (True, False) if shape.n_people > 1 else (True,):
            decoder = fit_linear(x_NCT, label_N, person_N, shape.n_outputs, shape.n_people, width, pooled=pooled)
            if decoder is None:
                continue
            log_p = decoder.log_probability(validation_NCT, parts[VALIDATION].person_N)
            weight = 1.0 / np.bincount(truth, minlength=shape.n_outputs).clip(1)[truth]
            loss = float(-(weight * log_p[np.arange(len(truth)), truth]).sum() / weight.sum())
            if best is None or loss < best[0]:
                best = (loss, decoder)
    assert best is not None  # the pooled one always fits: every class has training trials
    save_linear(best[1], path)
    return best[1]
