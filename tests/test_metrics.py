"""Scores against scikit-learn; p uniform under the null; what is exchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from synapse_diffusion.metrics import (
    Score,
    auc,
    bootstrap_interval,
    classification_scores,
    holm,
    people_interval,
    per_question,
    permute_blocks,
    permute_units,
    question_scores,
    retrieval_scores,
)
from synapse_diffusion.metrics.classification import _areas_by_cells, _areas_by_trials
from synapse_diffusion.metrics.questions import _auc_and_precision


def decisions(strength: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(24), 10)
    label = unit % 3
    logit = rng.standard_normal((240, 3)) + strength * np.eye(3)[label]
    logit += 0.5 * rng.standard_normal((24, 3))[unit]  # trials of a concept go together
    p = np.exp(logit)
    return p / p.sum(1, keepdims=True), label, unit


def test_scores_are_scikit_learns() -> None:
    p, label, unit = decisions(1.0, 0)
    rows = classification_scores(
        p, label, unit, permute_units(label, unit), permutations=200, bootstrap=200, rng=np.random.default_rng(0)
    )
    found = {row.metric: row for row in rows}
    hard = p.argmax(1)
    assert found["accuracy"].value == pytest.approx(accuracy_score(label, hard))
    assert found["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(label, hard))
    assert found["macro_f1"].value == pytest.approx(f1_score(label, hard, average="macro"))
    expected = np.mean([roc_auc_score(label == k, p[:, k]) for k in range(3)])
    assert found["auc"].value == pytest.approx(expected)
    assert auc(p, label) == pytest.approx(expected)
    for row in rows:
        assert row.low < row.value < row.high
        assert row.p == pytest.approx(1 / 201)


def test_weighted_areas_are_scikit_learns() -> None:
    """With ties, from pairs of cells and from trials; a class that no draw holds drops out of the mean."""
    rng = np.random.default_rng(3)
    label_N, cell_N = rng.integers(0, 3, 200), rng.integers(0, 9, 200)
    score_NK = (rng.random((200, 3)) + 0.3 * np.eye(3)[label_N]).round(1)
    weight_DC = rng.multinomial(9, np.full(9, 1 / 9), size=4).astype(float)
    weight_DC = np.concatenate([weight_DC, np.eye(9)[:1]])
    expected = [
        np.mean([
            roc_auc_score(label_N == k, score_NK[:, k], sample_weight=weight_C[cell_N])
            for k in range(3) if len(np.unique(label_N[weight_C[cell_N] > 0] == k)) == 2
        ])
        for weight_C in weight_DC
    ]  # fmt: skip
    for areas in (_areas_by_cells, _areas_by_trials):
        assert areas(score_NK, label_N, cell_N, 9)(weight_DC) == pytest.approx(expected, abs=1e-12)


def test_p_is_uniform_under_the_null() -> None:
    p_values = []
    for seed in range(60):
        p, label, unit = decisions(0.0, seed)
        rows = classification_scores(
            p, label, unit, permute_units(label, unit), permutations=60, bootstrap=0, rng=np.random.default_rng(seed)
        )
        p_values.append(rows[0].p)
    assert 0.35 < np.mean(p_values) < 0.65
    assert np.mean(np.array(p_values) < 0.1) < 0.25


def test_units_keep_their_trials_together() -> None:
    _, label, unit = decisions(0.0, 0)
    dealt = permute_units(label, unit)(np.random.default_rng(0))
    assert all(len(set(dealt[unit == u])) == 1 for u in range(24))
    assert np.array_equal(np.bincount(dealt), np.bincount(label))


def test_blocks_keep_their_sequence_of_labels() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(rng.integers(0, 2, 30), 8)  # a design with runs of eight
    block = np.repeat(np.arange(6), 40)
    dealt = permute_blocks(label, block)(rng)
    assert np.array_equal(np.bincount(dealt), np.bincount(label))
    changes = np.sum(np.diff(label) != 0)
    assert abs(int(np.sum(np.diff(dealt) != 0)) - int(changes)) <= 12  # two new borders a block at most
    assert not np.array_equal(dealt, label)


def test_slow_drift_is_no_effect() -> None:
    """A classifier that follows time only: trials exchanged singly would call it significant."""
    label = np.repeat([0, 1, 0, 1, 0, 1, 0, 1], 25)
    block = np.repeat(np.arange(4), 50)
    score = np.repeat([0.4, 0.6, 0.5, 0.6, 0.4, 0.5, 0.6, 0.4], 25)
    p = np.stack([1 - score, score], axis=1)
    rows = classification_scores(
        p, label, block, permute_blocks(label, block), permutations=300, bootstrap=0, rng=np.random.default_rng(0)
    )
    assert rows[0].p > 0.02


def answers(strength: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(40), 5)
    answer = rng.random((40, 6)) < np.array([0.1, 0.3, 0.5, 0.3, 0.0, 1.0])
    answer[0, :4], answer[1, :4] = True, False
    score = rng.standard_normal((200, 6)) + rng.standard_normal((40, 6))[unit] + strength * answer[unit]
    return np.round(score, 1).astype(np.float64), answer[unit], unit  # rounded: with ties


def test_questions_are_scikit_learns() -> None:
    score, answer, unit = answers(1.0, 0)
    area, precision = per_question(score, answer)
    assert np.isnan(area[4:]).all()
    assert np.isnan(precision[4:]).all()
    assert area[:4] == pytest.approx([roc_auc_score(answer[:, q], score[:, q]) for q in range(4)])
    assert precision[:4] == pytest.approx([average_precision_score(answer[:, q], score[:, q]) for q in range(4)])
    rows = question_scores(score, answer, unit, permutations=200, bootstrap=200, rng=np.random.default_rng(0))
    for row, each in zip(rows, (area, precision), strict=True):
        assert row.value == pytest.approx(each[:4].mean())
        assert row.low < row.value < row.high
        assert row.p < 0.02
    assert rows[0].chance == 0.5
    assert rows[1].chance == pytest.approx(answer[:, :4].mean(), abs=0.1)


def test_weighted_questions_are_scikit_learns() -> None:
    score, answer, _ = answers(0.5, 1)
    weight = np.random.default_rng(0).integers(0, 3, (4, 200)).astype(float)
    found = _auc_and_precision(score[:, 1], answer[None, :, 1].astype(float), weight, np.arange(200))
    for row, of_one in zip(weight, found.T, strict=True):
        assert of_one[0] == pytest.approx(roc_auc_score(answer[:, 1], score[:, 1], sample_weight=row))
        assert of_one[1] == pytest.approx(average_precision_score(answer[:, 1], score[:, 1], sample_weight=row))


def test_p_of_questions_is_uniform_under_the_null() -> None:
    p_values = []
    for seed in range(80):
        rows = question_scores(*answers(0.0, seed), permutations=60, bootstrap=0, rng=np.random.default_rng(seed))
        p_values.append([row.p for row in rows])
    assert np.all(np.abs(np.mean(p_values, axis=0) - 0.5) < 0.12)
    assert np.all(np.mean(np.array(p_values) < 0.1, axis=0) < 0.22)


def test_questions_without_two_answers_or_with_two_in_a_unit() -> None:
    score, answer, unit = answers(0.0, 0)
    rng = np.random.default_rng(0)
    rows = question_scores(score[:, 4:], answer[:, 4:], unit, permutations=5, bootstrap=5, rng=rng)
    assert all(np.isnan([row.value, row.p, row.low]).all() for row in rows)
    answer[0, 0] = not answer[0, 0]
    with pytest.raises(ValueError, match="differ in their answers"):
        question_scores(score, answer, unit, permutations=5, bootstrap=5, rng=rng)


def crossed(people: int, images: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Values of true mean 0 by people and images, who have effects of their own (sd 1), with noise of the trial."""
    rng = np.random.default_rng(seed)
    person, image = (index.ravel() for index in np.indices((people, images)))
    of_person, of_image = rng.standard_normal(people), rng.standard_normal(images)
    return of_person[person] + of_image[image] + rng.standard_normal(person.size), image, person


def test_an_interval_over_people_holds_what_new_people_would_give() -> None:
    """95 % of the intervals, and hardly half of those over images alone, of which new people are no part."""
    held, narrow = [], []
    for seed in range(150):
        value, image, person = crossed(12, 40, seed)
        rng = np.random.default_rng(seed)
        low, high = people_interval(value[None], image, [person], 300, rng)
        held.append(low[0] <= 0 <= high[0])
        low, high = bootstrap_interval(value[None], image, 300, rng)
        narrow.append(low[0] <= 0 <= high[0])
    assert 0.88 <= np.mean(held) <= 1
    assert np.mean(narrow) < 0.75


def test_every_score_has_an_interval_over_people() -> None:
    """Wider than that over concepts where people differ, the same for one trial or two of everything, and optional."""
    p, label, unit = decisions(1.0, 0)
    person = np.arange(240) % 5
    good = (person < 3)[:, None]
    p = np.where(good, p, 1 / 3)  # two people's decoders say nothing
    answer = np.eye(3, dtype=bool)[label]

    def rows(twice: int, people: list[NDArray[np.int64]]) -> list[Score]:
        p2, label2, unit2 = (np.concatenate([x] * twice) for x in (p, label, unit))
        options: dict[str, Any] = {"permutations": 0, "bootstrap": 300, "people": people}
        rng = [np.random.default_rng(0) for _ in range(3)]
        return [
            *classification_scores(p2, label2, unit2, permute_units(label2, unit2), **options, rng=rng[0]),
            *question_scores(p2, answer[np.tile(np.arange(240), twice)], unit2, **options, rng=rng[1]),
            *retrieval_scores(p2, label2, unit2, top=(1,), **options, rng=rng[2]),
        ]

    one, two, none = rows(1, [person]), rows(2, [np.tile(person, 2)]), rows(1, [])
    assert len(one) == 8
    for a, b, c in zip(one, two, none, strict=True):
        assert a.low_people < a.value < a.high_people
        assert a.high_people - a.low_people > a.high - a.low
        assert (a.low_people, a.high_people) == pytest.approx((b.low_people, b.high_people))
        assert np.isnan([c.low_people, c.high_people]).all()
        assert (a.value, a.low, a.high) == (c.value, c.low, c.high)


def test_holm_by_hand() -> None:
    """Of .01, .02, .03, .04: 4 x .01, 3 x .02, 2 x .03, and .04 no less than that."""
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]
    assert holm(np.array([0.2])).tolist() == [0.2]
    assert holm(np.array([])).tolist() == []
    with pytest.raises(ValueError, match=r"0 \.\. 1"):
        holm(np.array([np.nan]))


def test_holm_is_wrong_about_any_test_at_its_level_only() -> None:
    p_RM = np.random.default_rng(0).random((2000, 12))
    assert np.mean([holm(p_M).min() <= 0.05 for p_M in p_RM]) < 0.06
    assert np.mean(p_RM.min(1) <= 0.05) > 0.4
