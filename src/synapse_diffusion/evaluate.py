"""A trained run -> scores, intervals, confusion matrices. The only place where test data are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from synapse_diffusion.bids.truth import PersonTruth, read_truth
from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import RunError
from synapse_diffusion.figures import draw_confusions, draw_curve
from synapse_diffusion.metrics import (
    NoiseModel,
    Observer,
    classification_scores,
    confusion,
    permute_blocks,
    permute_units,
)
from synapse_diffusion.models.base import Shape
from synapse_diffusion.parallel import choose_device, use_threads
from synapse_diffusion.runs import Run, open_run, prediction_table, score_row
from synapse_diffusion.splits import TEST, TRAIN, VALIDATION
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import read_table
from synapse_diffusion.training.data import ScaledEpochs, accepted, open_epochs, open_stores
from synapse_diffusion.training.decoders import load_linear, load_network, network_log_probability
from synapse_diffusion.types import Progress, Say

BLOCK_TRIALS: Final = 20  # trials of a continuous design that are drawn together for an interval
OBSERVER_RATE_HZ: Final = 100.0


@dataclass(frozen=True)
class _Asked:
    """What is decoded: means over `k_repeats` trials of one image and person; each row a group of trial rows."""

    groups: list[NDArray[np.int64]]
    k_repeats: int

    @property
    def first(self) -> NDArray[np.int64]:
        return np.array([group[0] for group in self.groups], dtype=np.int64)


def evaluate(folder: Path, say: Say, progress: Progress) -> list[dict[str, Any]]:
    """Score a run on validation and test; write scores.json, predictions and figures; return the score rows.

    Raises `RunError` where the run is unfinished, or the stores are not those that it was trained on.
    """
    run = open_run(folder)
    needed = ("recipe.toml", "splits.tsv", "scaler.safetensors", "curve.tsv", f"predictions/{VALIDATION}.tsv")
    if missing := [name for name in needed if not (folder / name).exists()]:
        raise RunError(f"{folder}: not trained to the end (no {missing[0]}); run train with its recipe again")
    recipe, provenance = run.recipe, run.provenance
    use_threads(recipe.execution.threads)
    stores = open_stores(recipe, progress)
    digests = {str(s.folder.relative_to(Path(recipe.paths.stores))): s.digest for s in stores}
    if changed := [
        k for k in sorted({*digests, *provenance["stores"]}) if digests.get(k) != provenance["stores"].get(k)
    ]:
        raise RunError(f"{folder}: was trained on another content of the store {changed[0]}; train again")
    epochs = open_epochs(stores, recipe, choose_device(recipe.execution.device))
    classes = tuple(provenance["classes"])
    test = _predict_test(run, recipe, epochs, classes, provenance, progress)
    run.write_predictions(TEST, test)
    validation = _with_k(read_table(folder / "predictions" / f"{VALIDATION}.tsv"), classes)
    rows = []
    for split, table in ((VALIDATION, validation), (TEST, test)):
        rows += _score(table, split, classes, recipe, progress)
        _draw(run, table, split, classes, recipe)
    run.write_scores(rows)
    draw_curve(pd.read_csv(folder / "curve.tsv", sep="\t"), folder / "figures" / "curve.png")
    return rows


def _with_k(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    return table.astype({"k_repeats": int, "fold": int} | {f"p({name})": float for name in classes})


def _predict_test(
    run: Run,
    recipe: Recipe,
    epochs: Epochs,
    classes: tuple[str, ...],
    provenance: dict[str, Any],
    progress: Progress,
) -> pd.DataFrame:
    """Predictions of every model for all test trials and for means over repeats."""
    splits, scalers, shape = run.splits, run.read_scalers(), Shape(**provenance["shape"])
    row_of = {trial: row for row, trial in enumerate(epochs.trials["trial_id"])}
    person_N = epochs.trials["person"].map(provenance["people"]).to_numpy(dtype=np.int64)
    class_of = dict(zip(splits["trial_id"], splits["class"], strict=True))
    tables = []
    folds = sorted(splits["fold"].unique())
    for fold in folds:
        progress("decoding test trials", int(fold), len(folds))
        stage = f"fold{fold}_refit" if recipe.train.refit else f"fold{fold}"
        data = ScaledEpochs(epochs, scalers, stage, recipe.view)
        mine = splits[(splits["fold"] == fold) & (splits["split"] == TEST)]
        rows = np.array([row_of[trial] for trial in mine["trial_id"]], dtype=np.int64)
        rows = accepted(epochs, rows, recipe.view, run.read_limits(f"fold{fold}"))
        members = [
            load_network(run.checkpoint(f"{stage}_member{m}"), shape, recipe.model, epochs.device)
            for m in range(recipe.train.members)
        ]

        def table_of(asked: _Asked, log_p_NK: NDArray[np.float64], model: str, fold: int = fold) -> pd.DataFrame:
            trials = epochs.trials.iloc[asked.first]
            truth_N = trials["trial_id"].map(class_of).to_numpy(dtype=np.int64)
            return prediction_table(trials, log_p_NK, truth_N, classes, model, fold, asked.k_repeats)

        linear = load_linear(run.checkpoint(f"{stage}_linear"))
        for asked in _questions(epochs.trials, rows, recipe):
            x_NCT = torch.cat([_mean_of(data, asked.groups[k : k + 128]) for k in range(0, len(asked.groups), 128)])
            who = person_N[asked.first]
            log_p = {
                recipe.model.name: network_log_probability(members, x_NCT, who),
                "linear": linear.log_probability(x_NCT.cpu().numpy(), who),
            }
            tables += [table_of(asked, values, name) for name, values in log_p.items()]
        observed = _observe(recipe, epochs, rows, splits[splits["fold"] == fold], classes)
        tables += [table_of(asked, values, "observer") for asked, values in observed]
    progress("decoding test trials", len(folds), len(folds))
    return pd.concat(tables, ignore_index=True)


def _questions(trials: pd.DataFrame, rows: NDArray[np.int64], recipe: Recipe) -> Iterator[_Asked]:
    """Single trials, and where images repeat, means over k of a person's trials of one image (0: all)."""
    yield _Asked([np.array([row]) for row in rows], 1)
    frame = trials.iloc[rows][["person", "image_id"]].assign(row=rows)
    frame = frame[frame["image_id"] != "n/a"]
    repeated = [g["row"].to_numpy() for _, g in frame.groupby(["person", "image_id"], sort=True)]
    most = max((len(group) for group in repeated), default=1)
    rng = np.random.default_rng(recipe.evaluate.seed)
    for k in dict.fromkeys(most if k == 0 else k for k in recipe.evaluate.k_repeats):
        if not 1 < k <= most:
            continue
        groups = []
        for group in repeated:
            size = min(k, len(group))
            shuffled = rng.permutation(group)
            groups += [np.sort(shuffled[i : i + size]) for i in range(0, len(group) - size + 1, size)]
        yield _Asked(groups, k)


def _mean_of(data: ScaledEpochs, groups: Sequence[NDArray[np.int64]]) -> torch.Tensor:
    x_NCT = data.read(np.concatenate(groups))
    sizes = torch.tensor([len(group) for group in groups], device=x_NCT.device)
    index = torch.repeat_interleave(torch.arange(len(groups), device=x_NCT.device), sizes)
    total = torch.zeros(len(groups), *x_NCT.shape[1:], device=x_NCT.device).index_add_(0, index, x_NCT)
    return total / sizes[:, None, None]


def _score(
    table: pd.DataFrame, split: str, classes: Sequence[str], recipe: Recipe, progress: Progress
) -> list[dict[str, Any]]:
    """Score rows of every model, k and person, and of everyone together."""
    rows = []
    people = sorted(table["person"].unique())
    of_class = {name: k for k, name in enumerate(classes)}
    cases = [(m, k) for m in dict.fromkeys(table["model"]) for k in sorted(table["k_repeats"].unique())]
    for done, (model, k) in enumerate(cases):
        progress(f"scoring {split}", done, len(cases))
        for person in ["all", *people] if len(people) > 1 else ["all"]:
            mine = table[(table["model"] == model) & (table["k_repeats"] == k)]
            mine = mine if person == "all" else mine[mine["person"] == person]
            if mine.empty:
                continue
            label_N = mine["label"].map(of_class).to_numpy(dtype=np.int64)
            unit_N, permute = _design(mine, label_N, blocks=recipe.split.method == "blocks")
            rng = np.random.default_rng([recipe.evaluate.seed, done])
            scores = classification_scores(
                mine[[f"p({name})" for name in classes]].to_numpy(),
                label_N,
                unit_N,
                permute,
                permutations=recipe.evaluate.permutations if model != "observer" else 0,
                bootstrap=recipe.evaluate.bootstrap,
                rng=rng,
            )
            about = {
                "split": split,
                "person": person,
                "model": model,
                "k_repeats": int(k),
                "seed": recipe.train.seed,
            }
            control = "shuffled_labels" if recipe.labels.shuffled else "none"
            rows += [score_row(score, **about, modality=recipe.data.modality, control=control) for score in scores]
    progress(f"scoring {split}", len(cases), len(cases))
    return rows


def _design(table: pd.DataFrame, label_N: NDArray[np.int64], *, blocks: bool) -> tuple[NDArray[np.int64], Any]:
    """What an interval draws and a permutation exchanges: concepts, or contiguous stretches of trials."""
    concept = table["concept"].to_numpy(dtype=str)
    if not blocks:
        unit_N = np.unique(concept, return_inverse=True)[1]
        return unit_N, permute_units(label_N, unit_N)
    order = table.reset_index(drop=True)
    # within a fold, person and run trials follow each other as recorded: trial ids count them
    position = order.sort_values(["person", "trial_id"]).index.to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[position] = np.arange(len(order))
    block = np.unique((order["person"] + "/" + order["fold"].astype(str)).to_numpy(dtype=str), return_inverse=True)[1]
    permute_sorted = permute_blocks(label_N[position], block[position])
    within = pd.Series(rank).groupby(block).rank(method="first").to_numpy(dtype=np.int64) - 1
    return block * len(order) + within // BLOCK_TRIALS, lambda rng: permute_sorted(rng)[rank]


def _draw(run: Run, table: pd.DataFrame, split: str, classes: Sequence[str], recipe: Recipe) -> None:
    mine = table[table["model"] == recipe.model.name]
    of_class = {name: k for k, name in enumerate(classes)}
    counts = []
    for k in sorted(mine["k_repeats"].unique()):
        part = mine[mine["k_repeats"] == k]
        label_N, predicted_N = (part[c].map(of_class).to_numpy(dtype=np.int64) for c in ("label", "predicted"))
        matrix = confusion(label_N, predicted_N, len(classes))
        counts.append(("single trials" if k == 1 else f"means of {k} repeats", matrix))
    names = {VALIDATION: "val", TEST: "test"}
    people = ", ".join(f"sub-{person}" for person in sorted(mine["person"].unique())[:6])
    title = f"{split}: {recipe.model.name} decoder, {recipe.data.name} ({people})"
    draw_confusions(counts, classes, title, run.folder / "figures" / f"confusion_{names[split]}.png")


def _observe(
    recipe: Recipe, epochs: Epochs, rows: NDArray[np.int64], splits: pd.DataFrame, classes: Sequence[str]
) -> list[tuple[_Asked, NDArray[np.float64]]]:
    """The category observer's log likelihoods on the same test trials, where the truth is known."""
    found: list[tuple[_Asked, NDArray[np.float64]]] = []
    person_N = epochs.trials["person"].to_numpy(dtype=str)
    trained = splits[splits["split"] == TRAIN].drop_duplicates("image_id")
    class_of_image = dict(zip(trained["image_id"], trained["class"], strict=True))
    for person in np.unique(person_N[rows]):
        truth = read_truth(Path(recipe.paths.bids), person)
        if truth is None:
            return []
        observer, width = person_observer(truth, epochs, recipe)
        known = [k for k, image in enumerate(truth.images) if image in class_of_image]
        known_class = np.array([class_of_image[truth.images[k]] for k in known], dtype=np.int64)
        for asked in _questions(epochs.trials, rows[person_N[rows] == person], recipe):
            x_NCT = observer_epochs(epochs, asked.groups, width)
            found.append((asked, observer.categorise(x_NCT, np.array(known), known_class, asked.k_repeats)))
    return found


def person_observer(truth: PersonTruth, epochs: Epochs, recipe: Recipe) -> tuple[Observer, int]:
    """The observer of one person for this view, and the samples of its time bins (at most 100 Hz)."""
    width = max(1, round(epochs.sfreq / OBSERVER_RATE_HZ))
    n_bins = epochs.n_times // width
    times = epochs.times[: n_bins * width].reshape(n_bins, width).mean(1)
    columns = [truth.sensors.index(name) for name in epochs.channels]
    pattern = truth.pattern_SNC[:, :, columns]
    pattern = pattern - pattern.mean(2, keepdims=True)
    rate = epochs.sfreq / width
    noise = NoiseModel(
        spatial_MCC=truth.noise_MCC[:, columns][:, :, columns],
        autocovariance_MT=_autocovariances(truth, recipe, rate, n_bins),
        onset_distance_s=truth.onset_distance_s,
    )
    observer = Observer(pattern, truth.latency_S, truth.width_S, truth.latency_sd_S, truth.gain_sd_S, noise, times)
    return observer, width


def observer_epochs(epochs: Epochs, groups: Sequence[NDArray[np.int64]], width: int) -> NDArray[np.float64]:
    """Mean epochs (N, C, T // width) in V or T of groups of trials, average reference, time-binned."""
    means = []
    for group in groups:
        x_CT = epochs.read(group).mean(0).double().cpu().numpy()
        n_bins = x_CT.shape[1] // width
        means.append(x_CT[:, : n_bins * width].reshape(len(x_CT), n_bins, width).mean(-1))
    x_NCT = np.stack(means)
    return np.asarray(x_NCT - x_NCT.mean(1, keepdims=True))


def _autocovariances(truth: PersonTruth, recipe: Recipe, rate: float, n_lags: int) -> NDArray[np.float64]:
    """Autocovariances (M, lags) in V^2 or T^2 of the noise's components, after conversion and binning to `rate` Hz."""
    f, convert = truth.frequency_F, recipe.convert
    gain = np.clip((0.5 * rate - f) / (0.05 * rate), 0, 1)
    if convert.lowpass_hz:  # MNE's transition: a quarter of the edge, 2 Hz or more
        gain *= np.clip(1 - (f - convert.lowpass_hz) / max(0.25 * convert.lowpass_hz, 2.0), 0, 1)
    if convert.highpass_hz:
        gain *= np.clip(f / convert.highpass_hz, 0, 1)
    cosine = np.cos(2 * np.pi * np.outer(np.arange(n_lags) / rate, f))
    return np.asarray((truth.noise_power_MF * gain**2) @ cosine.T * (f[1] - f[0]))
