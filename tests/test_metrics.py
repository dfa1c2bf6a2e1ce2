"""Scores against scikit-learn; p uniform under the null; what is exchanged."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from synapse_diffusion.metrics import auc, classification_scores, permute_blocks, permute_units


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
