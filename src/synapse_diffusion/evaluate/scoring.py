"""Answers -> score rows: what is right, how far above chance, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.metrics import (
    Score,
    align,
    by_concept,
    classification_scores,
    csls,
    hits,
    paired_difference,
    people_interval,
    permute_blocks,
    permute_units,
    question_scores,
    retrieval_scores,
    sinkhorn,
)
from synapse_diffusion.runs import score_row
from synapse_diffusion.splits import natural_order
from synapse_diffusion.training.decisions import ABOUT, columns, first_rows
from synapse_diffusion.training.examples import Asked
from synapse_diffusion.training.setting import Index, Setting
from synapse_diffusion.types import Progress, silent

ROUGH_PEOPLE: Final = 4  # so few tell little of others: their two-sided Wilcoxon cannot go under .125
BLOCK_TRIALS: Final = 20  # trials of a continuous design that are drawn together for an interval
SINKHORN: Final = (0.05, 20)  # temperature of standardised scores, iterations
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Answered:
    """What one model says to one question: decisions with their trials, scores (N, K), true columns or answer rows."""

    model: str
    k_repeats: int
    trials: pd.DataFrame
    """`trial_id person session run image_id concept fold` of each decision (its first trial); of pairs of modalities
    also `meg_person`."""
    score_NK: Scores
    truth_N: Index
    control: str = "none"
    aligned_NK: Scores | None = None
    """Transductive: scores after the predicted vectors were turned onto the gallery's, each person's by themselves."""

    @property
    def people(self) -> dict[str, NDArray[np.str_]]:
        """Whose trials these are (N,), of a fusion by modality; empty where two people of one modality are asked."""
        if self.model.startswith("two "):
            return {}
        columns = [str(name) for name in self.trials if name == "person" or str(name).endswith("_person")]
        return {name: self.trials[name].to_numpy(dtype=str) for name in columns}

    @property
    def n_people(self) -> int | None:
        """How many; of a fusion, of the modality that has fewer."""
        return min((len(set(person_N)) for person_N in self.people.values()), default=None)

    @property
    def several(self) -> list[Index]:
        """The people by number, where there are two or more to draw from."""
        if (self.n_people or 0) < 2:
            return []
        return [np.unique(person_N, return_inverse=True)[1] for person_N in self.people.values()]

    def of(self, person: str) -> Answered:
        """One person's decisions."""
        if person == "all":
            return self
        mine = (self.trials["person"] == person).to_numpy()
        trials = self.trials[mine].reset_index(drop=True)
        aligned_NK = None if self.aligned_NK is None else self.aligned_NK[mine]
        return replace(
            self, trials=trials, score_NK=self.score_NK[mine], truth_N=self.truth_N[mine], aligned_NK=aligned_NK
        )


def answered(
    setting: Setting, asked: Asked, gallery_K: Index | None, scores: dict[str, Scores], k_repeats: int, fold: int,
    control: str = "none",
) -> list[Answered]:  # fmt: skip
    """Answers of several models to the same decisions."""
    first, *others = asked.picks
    trials = setting.sources.of[first].trials.iloc[first_rows(asked, first)][list(ABOUT)].reset_index(drop=True)
    for name in others:
        trials[f"{name}_person"] = setting.sources.of[name].trials["person"].iloc[first_rows(asked, name)].to_numpy()
    truth_N = columns(setting, asked.target_N, gallery_K)
    return [
        Answered(model, k_repeats, trials.assign(fold=fold), score_NK, truth_N, control)
        for model, score_NK in scores.items()
    ]


def with_aligned(answer: Answered, predicted_ND: Scores, gallery_KD: Scores) -> Answered:
    """The answer with each person's predicted vectors turned onto the gallery's (of a fusion, with all pairs')."""
    people = answer.people
    person_N = people["person"] if len(people) == 1 else np.zeros(len(predicted_ND))
    aligned_NK = np.empty_like(answer.score_NK)
    for person in np.unique(person_N):
        mine = person_N == person
        aligned_NK[mine] = align(predicted_ND[mine], gallery_KD)
    return replace(answer, aligned_NK=aligned_NK)


def joined(parts: Sequence[Answered]) -> list[Answered]:
    """The same model's answers of several folds, together."""
    groups: dict[tuple[str, int, str], list[Answered]] = {}
    for part in parts:
        groups.setdefault((part.model, part.k_repeats, part.control), []).append(part)
    return [
        replace(
            of[0],
            trials=pd.concat([p.trials for p in of], ignore_index=True),
            score_NK=np.concatenate([p.score_NK for p in of]),
            truth_N=np.concatenate([p.truth_N for p in of]),
            aligned_NK=None
            if of[0].aligned_NK is None
            else np.concatenate([p.aligned_NK for p in of if p.aligned_NK is not None]),
        )
        for of in groups.values()
    ]


def score_rows(
    setting: Setting, answers: Sequence[Answered], split: str, gallery_K: Index | None, seed: int,
    progress: Progress = silent,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of scores.json of one part: every model, k and person, and everyone together."""
    rows = []
    for number, answer in enumerate(answers):
        progress(f"scoring {split}, {answer.model}", number, len(answers))
        for person in _everyone(setting, [answer]):
            rng = np.random.default_rng([seed, number])
            mine = answer.of(person)
            about = _about(setting, mine, split, person)
            for score, more in _scores(setting, mine, gallery_K, rng):
                rows.append(_row(score, **about, **more))
    return rows


def difference_rows(setting: Setting, answers: Sequence[Answered], split: str, ours: str) -> list[dict[str, Any]]:
    """How much more often `ours` is right than every other model, with a paired interval: over all people, and of each.

    Images are drawn again (for classes concepts, of contiguous blocks stretches); of each counts the mean over its
    decisions.
    """
    plain = [answer for answer in answers if answer.control == "none"]
    if setting.task.answers is not None:
        return []
    return [
        row for person in _everyone(setting, plain) for row in _differences(setting, plain, split, ours, person)
    ]  # fmt: skip


def _everyone(setting: Setting, answers: Sequence[Answered]) -> list[str]:
    """Whose decisions have rows of their own: all together, and each person (of a fusion's pairs nobody is)."""
    people = sorted({str(person) for answer in answers for person in answer.trials["person"].unique()})
    return ["all", *people] if len(people) > 1 and not setting.sources.is_fusion else ["all"]


def _differences(
    setting: Setting, answers: Sequence[Answered], split: str, ours: str, person: str
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    settings, right, by_people = setting.recipe.evaluate, {}, {}
    for number, answer in enumerate(answer.of(person) for answer in answers):
        hit, unit_N = pd.Series(hits(answer.score_NK, answer.truth_N, 1)), _units(setting, answer)
        right[number] = hit.groupby(unit_N).mean()
        if answer.several:
            by_people[number] = hit.groupby([unit_N, *answer.people.values()]).mean()
    for mine in [n for n in right if answers[n].model == ours]:
        for other in [n for n in right if n != mine and answers[n].k_repeats == answers[mine].k_repeats]:
            both = pd.concat([right[mine], right[other]], axis=1, join="inner")
            if both.empty:  # nobody asked this person so
                continue
            a, b = both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy()
            rng = np.random.default_rng(settings.seed)
            value, low, high = paired_difference(a, b, np.arange(len(a)), settings.bootstrap, rng)
            wide = float("nan"), float("nan")
            if mine in by_people and other in by_people:
                cells = pd.concat([by_people[mine], by_people[other]], axis=1, join="inner")
                wide = _difference_over_people(cells, settings.bootstrap, rng)
            score = Score("right_more_often", value, 0.0, low, high, float("nan"), len(a), *wide)
            named = replace(answers[mine], model=f"{ours} - {answers[other].model}").of(person)
            about = _about(setting, named, split, person)
            rows.append(_row(score, **about, gallery=named.score_NK.shape[1]))
    return rows


def _units(setting: Setting, answer: Answered) -> NDArray[np.str_]:
    """What an interval draws again, of each decision: an image, a concept, or a stretch of trials."""
    trials = answer.trials
    if setting.task.kind == "retrieve":
        return trials["image_id"].to_numpy(dtype=str)
    if setting.recipe.split.method != "blocks":
        return trials["concept"].to_numpy(dtype=str)
    stretch = pd.Series(design(trials, answer.truth_N, blocks=True)[0]) % len(trials)
    return (trials["person"] + "/" + trials["fold"].astype(str) + "/" + stretch.astype(str)).to_numpy(dtype=str)


def _difference_over_people(cells: pd.DataFrame, n_draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Interval of the mean difference of two columns with an index of unit and people, all drawn again."""
    index = [np.unique(level, return_inverse=True)[1] for level in zip(*cells.index, strict=True)]
    difference_1N = (cells.iloc[:, 0] - cells.iloc[:, 1]).to_numpy()[None]
    low, high = people_interval(difference_1N, index[0], index[1:], n_draws, rng)
    return float(low[0]), float(high[0])


def _about(setting: Setting, answer: Answered, split: str, person: str) -> dict[str, Any]:
    recipe = setting.recipe
    control = "shuffled_labels" if recipe.labels.shuffled and answer.control == "none" else answer.control
    return {
        "task": setting.task.kind, "split": split, "person": person, "model": answer.model,
        "k_repeats": answer.k_repeats, "seed": recipe.train.seed, "n_people": answer.n_people, "control": control,
        "modality": "eeg+meg" if setting.sources.is_fusion else recipe.data.modality,
    }  # fmt: skip


def _row(score: Score, *, n_people: int | None, **about: Any) -> dict[str, Any]:
    rough = np.isfinite(score.low_people) and n_people is not None and n_people <= ROUGH_PEOPLE
    note = f"the interval over {n_people} people is rough" if rough else None
    return score_row(score, **about, n_people=n_people, note=note)


@dataclass(frozen=True)
class _Draws:
    """What all scores are asked with."""

    permutations: int
    bootstrap: int
    rng: np.random.Generator
    people: Sequence[Index]


def _scores(
    setting: Setting, answer: Answered, gallery_K: Index | None, rng: np.random.Generator
) -> list[tuple[Score, dict[str, Any]]]:
    settings = setting.recipe.evaluate
    permutations = settings.permutations if "observer" not in answer.model else 0
    draws = _Draws(permutations, settings.bootstrap, rng, answer.several)
    if setting.task.kind == "retrieve":
        assert gallery_K is not None
        return _retrieval(setting, answer, gallery_K, draws)
    if setting.task.answers is not None:
        concept = answer.trials["concept"].to_numpy(dtype=str)
        unit_N = np.unique(concept, return_inverse=True)[1]
        answer_NQ = setting.task.answers[answer.truth_N]
        return [(score, {}) for score in question_scores(answer.score_NK, answer_NQ, unit_N, **vars(draws))]
    unit_N, permute = design(answer.trials, answer.truth_N, blocks=setting.recipe.split.method == "blocks")
    probability = np.exp(answer.score_NK - np.logaddexp.reduce(answer.score_NK, axis=1, keepdims=True))
    return [(s, {}) for s in classification_scores(probability, answer.truth_N, unit_N, permute, **vars(draws))]


def _retrieval(
    setting: Setting, answer: Answered, gallery_K: Index, draws: _Draws
) -> list[tuple[Score, dict[str, Any]]]:
    """By exact image and by concept; and with all test decisions at once, which is another question."""
    assert setting.task.table is not None
    image_N = np.unique(answer.trials["image_id"].to_numpy(dtype=str), return_inverse=True)[1]
    n = len(gallery_K)

    def scored(score_NK: Scores, truth_N: Index, unit_N: Index, permutations: int) -> list[Score]:
        return retrieval_scores(score_NK, truth_N, unit_N, **vars(replace(draws, permutations=permutations)))

    found: list[tuple[Score, dict[str, Any]]] = [
        (score, {"gallery": n}) for score in scored(answer.score_NK, answer.truth_N, image_N, draws.permutations)
    ]
    if answer.control != "none":
        return found
    concept_K = setting.task.table.rows["concept"].to_numpy(dtype=str)[gallery_K]
    if len(set(concept_K)) < n:
        score_NJ, concepts = by_concept(answer.score_NK, concept_K)
        truth_N = np.searchsorted(concepts, concept_K[answer.truth_N])
        for score in scored(score_NJ, truth_N, truth_N, draws.permutations):
            found.append((replace(score, metric=f"concept_{score.metric}"), {"gallery": len(concepts)}))
    if "observer" not in answer.model:
        z_NK = answer.score_NK - answer.score_NK.mean(1, keepdims=True)
        z_NK = z_NK / max(float(z_NK.std()), 1e-12)
        rescaled = {"csls": csls(z_NK), "sinkhorn": sinkhorn(z_NK, SINKHORN[0] * 10, SINKHORN[1])}
        if answer.aligned_NK is not None:
            rescaled["procrustes"] = answer.aligned_NK
        for name, score_NK in rescaled.items():
            for score in scored(score_NK, answer.truth_N, image_N, 0):
                found.append((replace(score, metric=f"{name}_{score.metric}"), {"gallery": n, "transductive": True}))
    return found


def design(
    trials: pd.DataFrame, label_N: Index, *, blocks: bool
) -> tuple[Index, Callable[[np.random.Generator], Index]]:
    """What an interval draws and a permutation exchanges: concepts, or contiguous stretches of trials."""
    concept = trials["concept"].to_numpy(dtype=str)
    if not blocks:
        unit_N = np.unique(concept, return_inverse=True)[1]
        return unit_N, permute_units(label_N, unit_N)
    order = trials.reset_index(drop=True)
    # within a fold, person and run trials follow each other as recorded: trial ids count them
    position = np.lexsort([natural_order(order["trial_id"]), order["person"].to_numpy(dtype=str)])
    rank = np.empty(len(order), np.int64)
    rank[position] = np.arange(len(order))
    block = np.unique((order["person"] + "/" + order["fold"].astype(str)).to_numpy(dtype=str), return_inverse=True)[1]
    permute_sorted = permute_blocks(label_N[position], block[position])
    within = pd.Series(rank).groupby(block).rank(method="first").to_numpy(dtype=np.int64) - 1
    return block * len(order) + within // BLOCK_TRIALS, lambda rng: permute_sorted(rng)[rank]
