"""Score a run on validation and test; draw what it decodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synapse_diffusion.evaluate.asking import Question, most_repeats, pick_of, questions, two_people
from synapse_diffusion.evaluate.confounds import feature_inputs, feature_table
from synapse_diffusion.evaluate.controls import control_answers
from synapse_diffusion.evaluate.dynamics import dynamics
from synapse_diffusion.evaluate.maps import map_contributions
from synapse_diffusion.evaluate.newcomers import first_person, newcomers
from synapse_diffusion.evaluate.observers import Observers
from synapse_diffusion.evaluate.pictures import draw_part, draw_scores
from synapse_diffusion.evaluate.scoring import (
    Answered,
    Scores,
    answered,
    difference_rows,
    joined,
    score_rows,
    with_aligned,
)
from synapse_diffusion.models.fusion import FUSED
from synapse_diffusion.runs import Run, with_holm
from synapse_diffusion.splits import TEST, VALIDATION
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.decisions import decision_table, gallery_of
from synapse_diffusion.training.decoding import SUM, FoldModels, log_likelihood
from synapse_diffusion.training.examples import Asked
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.trained import Trained, open_trained
from synapse_diffusion.types import Folder, Progress, Say, silent


def unscored(run: Run) -> str:
    """Why a trained run is to be evaluated with the settings in its recipe; empty: its scores are these."""
    missing = [name for name in ("predictions/test.tsv", "figures") if not (run.folder / name).exists()]
    return run.unscored(run.recipe.target.task, _inputs(run)) or (f"no {missing[0]} is there" if missing else "")


def _inputs(run: Run) -> dict[str, str]:
    """What scores are made of, by digest."""
    recipe = run.recipe
    inputs = {"the run": run.content, "settings of evaluate": recipe.digest("evaluate")}
    return {**inputs, "tables of image features": feature_inputs(recipe)}


def evaluate(folder: Folder, say: Say = silent, progress: Progress = silent) -> list[dict[str, Any]]:
    """Score a run on validation and test; write scores.json, predictions and figures; return the score rows.

    Validation by the decoders that were chosen on it, test by the final ones. Raises `RunError` where the run is
    unfinished, or the data are not those that it was trained on.
    """
    trained = open_trained(Path(folder), progress)
    setting, rows = trained.setting, []
    features, observers = feature_table(trained, say), _observers(trained)
    most = max(most_repeats(setting, trained.rows(number, TEST)) for number in range(len(trained.folds)))
    for k in setting.recipe.evaluate.k_repeats:
        if k > most:
            say(f"evaluate.k_repeats = {k} is left out: a test image has {most} repeats of one person at most")
    if "prestimulus" in setting.recipe.evaluate.controls and (
        setting.sources.is_fusion or not setting.recipe.train.baselines
    ):
        say("control prestimulus is left out: it is of the linear baseline of one modality (train.baselines)")
    for split in (VALIDATION, TEST):
        answers, tables = [], []
        gallery_K = _gallery(trained, split)
        for number in range(len(trained.folds)):
            found, table = _answers(trained, number, split, gallery_K, features, observers, progress)
            answers += found
            tables.append(table)
        together = joined(answers)
        rows += score_rows(setting, together, split, gallery_K, setting.recipe.evaluate.seed, progress)
        rows += difference_rows(setting, together, split, _main(trained))
        for missing in setting.sources.of if setting.sources.is_fusion else ():
            ours, left = f"{FUSED} without {missing}", {*setting.sources.of} - {missing}
            mine = [answer for answer in together if answer.model in {ours, *left}]
            rows += difference_rows(setting, mine, split, ours)
        trained.run.write_predictions(split, pd.concat(tables, ignore_index=True))
        draw_part(trained, together, split)
    rows += _larger_galleries(trained, say, progress)
    if setting.recipe.evaluate.dynamics:
        rows += dynamics(trained, progress)
    rows = with_holm(rows)
    if setting.recipe.evaluate.maps:
        map_contributions(trained, progress)
    trained.run.write_scores(rows, _inputs(trained.run))
    draw_scores(trained)
    return rows


def _main(trained: Trained) -> str:
    return FUSED if trained.setting.sources.is_fusion else trained.setting.recipe.model.name


def _gallery(trained: Trained, split: str) -> Index | None:
    """All images of a part, whatever the fold; None for other tasks."""
    found = [
        trained.setting.task.of[name].target_N[rows]
        for number in range(len(trained.folds))
        for name, rows in trained.rows(number, split).items()
    ]
    return gallery_of(trained.setting, np.concatenate(found))


def _answers(
    trained: Trained,
    number: int,
    split: str,
    gallery_K: Index | None,
    features: EmbeddingTable | None,
    observers: Observers | None,
    progress: Progress,
) -> tuple[list[Answered], pd.DataFrame]:
    """All models' answers to a fold's part, and their table."""
    setting, final = trained.setting, split == TEST
    models = trained.models(number, final=final)
    rows = trained.rows(number, split)
    targets = {name: setting.task.of[name].target_N[r] for name, r in rows.items()}
    answers, tables = [], []
    new = newcomers(trained, number, models, progress) if final else None
    asked = list(questions(setting, rows, targets))
    for done, question in enumerate(asked):
        progress(f"decoding {split} trials", number * len(asked) + done, len(trained.folds) * len(asked))
        k = question.k_repeats
        scores = models.ask(question.asked, gallery_K, k)
        scores |= _combined(trained, number, question, gallery_K, scores)
        if new is not None:
            scores |= new.ask(question, first_person(trained, question.asked), gallery_K)
        if final and observers is not None:
            scores |= _observed(trained, observers, question, gallery_K)
        found = answered(setting, question.asked, gallery_K, scores, k, number)
        if final and gallery_K is not None:
            vectors = models.spaces(question.asked, gallery_K, _main(trained))
            found = [with_aligned(a, *vectors) if a.model == _main(trained) else a for a in found]
        answers += found
        tables += [
            decision_table(setting, question.asked, gallery_K, score, model, number, k)
            for model, score in scores.items()
        ]
        if final and setting.sources.is_fusion:
            answers += _two_people(trained, number, models, rows, gallery_K, k)
        if final:
            answers += control_answers(trained, number, models, question, gallery_K, features)
    return answers, pd.concat(tables, ignore_index=True)


def _combined(
    trained: Trained, number: int, question: Question, gallery_K: Index | None, scores: dict[str, Scores]
) -> dict[str, Scores]:
    """Sums of log likelihoods that are calibrated on validation: of a fusion's modalities; of decoder and encoder."""
    setting = trained.setting
    temperatures = trained.run.read_temperatures(f"fold{number}")

    def total(*models: str) -> Scores:
        parts = [log_likelihood(setting, scores[model], temperatures[model]) for model in models]
        return np.asarray(np.sum(parts, axis=0))

    found = {}
    if setting.sources.is_fusion:
        names = tuple(setting.sources.of)
        found[SUM] = total(*names)
        if f"encoding {names[0]}" in scores:
            found[f"{FUSED} + encoding"] = total(FUSED, *(f"encoding {name}" for name in names))
    elif "encoding" in scores:
        found[f"{setting.recipe.model.name} + encoding"] = total(setting.recipe.model.name, "encoding")
    return found


def _two_people(
    trained: Trained, number: int, models: FoldModels, rows: dict[str, Index], gallery_K: Index | None, k: int
) -> list[Answered]:
    """What two people of one modality tell together: the fusion's control at equal numbers of trials."""
    setting, found = trained.setting, []
    temperatures = trained.run.read_temperatures(f"fold{number}")
    for name, mine in rows.items():
        rng = np.random.default_rng(setting.recipe.evaluate.seed)
        first, second = two_people(setting, name, mine, k, rng)
        if not first:
            continue
        target_N = setting.task.of[name].target_N[np.array([group[0] for group in first])]
        parts = []
        for groups in (first, second):
            asked = Asked({name: pick_of(setting, name, groups)}, target_N)
            score_NK = models.own(name, asked, gallery_K)
            parts.append(log_likelihood(setting, score_NK, temperatures[name]))
        asked = Asked({name: pick_of(setting, name, first)}, target_N)
        found += answered(setting, asked, gallery_K, {f"two {name} people": parts[0] + parts[1]}, k, number)
    return found


def _observers(trained: Trained) -> Observers | None:
    """Of a study of one modality and decisions between classes or images."""
    setting = trained.setting
    if setting.sources.is_fusion or setting.task.answers is not None:
        return None
    [source] = setting.sources.of.values()
    return Observers(setting.recipe, source.epochs)


def _observed(trained: Trained, observers: Observers, question: Question, gallery_K: Index | None) -> dict[str, Scores]:
    """What ideal observers say, where the study is simulated."""
    setting = trained.setting
    if gallery_K is None:
        found = observers.classes(question.asked, question.k_repeats, trained.run.splits)
    else:
        assert setting.task.table is not None
        [(name, pick)] = question.asked.picks.items()
        target_N = setting.task.of[name].target_N[pick.rows]
        single = setting.single(name, pick.rows, target_N)
        images = setting.task.table.rows["image_id"].to_numpy(dtype=str)[gallery_K]
        found = observers.images(single, list(images))
        if found is not None:  # repeats are independent given the image
            found = np.add.reduceat(found, np.cumsum(pick.size_N) - pick.size_N, axis=0)
    return {} if found is None else {"observer": found}


def _larger_galleries(trained: Trained, say: Say, progress: Progress) -> list[dict[str, Any]]:
    """The test decisions again among more images: of test concepts first, then others; none was trained as a target
    of a test trial, but pictures of trained concepts were seen in training, which makes them harder to tell apart.

    Which images they are is written to galleries.tsv.
    """
    setting, rows, tables, path = trained.setting, [], [], trained.run.folder / "galleries.tsv"
    path.unlink(missing_ok=True)
    if setting.task.table is None or not any(setting.recipe.evaluate.gallery):
        return []
    test_K = _gallery(trained, TEST)
    assert test_K is not None
    images = setting.task.table.rows
    concept = images["concept"].to_numpy(dtype=str)
    others = np.setdiff1d(np.arange(len(images)), test_K)
    near = np.isin(concept[others], concept[test_K])
    rng = np.random.default_rng(setting.recipe.evaluate.seed)
    dealt = np.concatenate([rng.permutation(others[near]), rng.permutation(others[~near])])
    sizes = set()
    for size in setting.recipe.evaluate.gallery:
        if size > len(images):
            say(f"evaluate.gallery = {size}: the table has {len(images)} images, all of which are taken")
        if min(size, len(images)) > len(test_K):
            sizes.add(min(size, len(images)))
        elif size:
            say(f"evaluate.gallery = {size} is left out: the {len(test_K)} test images are a gallery already")
    for size in sorted(sizes):
        gallery_K = np.sort(np.concatenate([test_K, dealt[: size - len(test_K)]]))
        answers = []
        for number in range(len(trained.folds)):
            progress(f"gallery of {size}", number, len(trained.folds))
            part = trained.rows(number, TEST)
            targets = {name: setting.task.of[name].target_N[r] for name, r in part.items()}
            models = trained.models(number, final=True)
            for question in questions(setting, part, targets):
                scores = models.ask(question.asked, gallery_K, question.k_repeats)
                answers += answered(setting, question.asked, gallery_K, scores, question.k_repeats, number)
        found = score_rows(setting, joined(answers), TEST, gallery_K, setting.recipe.evaluate.seed)
        rows += [row for row in found if not row["transductive"]]
        tables.append(pd.DataFrame({"gallery": size, "image_id": images["image_id"].to_numpy(dtype=str)[gallery_K]}))
    if tables:
        write_table(pd.concat(tables), path)
    return rows
