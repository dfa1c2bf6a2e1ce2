"""Retrieval: ranks by hand, chance and p under random scores, what is exchanged, calibration and fusion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy
from numpy.typing import NDArray

from synapse_diffusion.metrics import (
    Score,
    align,
    by_concept,
    calibrate,
    csls,
    fuse,
    hits,
    log_softmax,
    paired_difference,
    ranks,
    retrieval_scores,
    sinkhorn,
)

Array = NDArray[np.float64]


def experts(strengths: list[float], seed: int, n_images: int = 20, repeats: int = 12) -> tuple[list[Array], Any]:
    """Scores of decoders that see each image's vector in their own unit noise, each in its own unit."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(n_images), repeats)
    vectors = rng.standard_normal((n_images, 5))
    scores = []
    for strength in strengths:
        seen = strength * vectors[truth] + rng.standard_normal((len(truth), 5))
        distance = np.square(seen[:, None] - strength * vectors).sum(2)
        scores.append(-0.5 * distance)
    return scores, truth


def named(rows: list[Score]) -> dict[str, Score]:
    return {row.metric: row for row in rows}


def scored(score_NK: Array, truth: Any, seed: int = 0, permutations: int = 100, bootstrap: int = 0) -> dict[str, Score]:
    rng = np.random.default_rng(seed)
    return named(retrieval_scores(score_NK, truth, truth, permutations=permutations, bootstrap=bootstrap, rng=rng))


def test_ranks_by_hand() -> None:
    score = np.array([[0.9, 0.5, 0.1, 0.5], [0.9, 0.5, 0.1, 0.5], [0.2, 0.2, 0.2, 0.2]])
    truth = np.array([0, 1, 2])
    assert ranks(score, truth).tolist() == [0.0, 1.5, 1.5]
    assert hits(score, truth, 1).tolist() == [1.0, 0.0, 0.25]
    assert hits(score, truth, 2).tolist() == [1.0, 0.5, 0.5]
    found = named(
        retrieval_scores(score, truth, truth, top=(1, 2), permutations=9, bootstrap=0, rng=np.random.default_rng(0))
    )
    assert found["top1"].value == pytest.approx(1.25 / 3)
    assert found["top2"].value == pytest.approx(2 / 3)
    assert found["mean_rank"].value == pytest.approx(1 / 3)
    assert (found["top2"].chance, found["mean_rank"].chance, found["top1"].n) == (0.5, 0.5, 3)
    with pytest.raises(ValueError, match="NaN"):
        ranks(score * np.nan, truth)


def test_scores_that_say_nothing_are_at_chance() -> None:
    found = scored(np.zeros((40, 20)), np.arange(40) % 20)
    for name, expected in (("top1", 0.05), ("top5", 0.25), ("mean_rank", 0.5)):
        assert found[name].value == pytest.approx(expected)
        assert found[name].chance == pytest.approx(expected)
        assert found[name].p == 1.0


def test_p_is_uniform_though_trials_of_an_image_agree() -> None:
    p_values, means = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        truth = np.repeat(np.arange(20), 10)
        score = rng.standard_normal((200, 20)) + 2 * rng.standard_normal((20, 20))[truth] + rng.standard_normal(20)
        found = scored(score, truth, seed)
        p_values.append([row.p for row in found.values()])
        means.append([row.value for row in found.values()])
    assert np.abs(np.mean(p_values, axis=0)[2] - 0.5) < 0.1
    assert np.all(np.mean(np.array(p_values) <= 0.1, axis=0) < 0.2)
    assert np.allclose(np.mean(means, axis=0), [0.05, 0.25, 0.5], atol=0.02)


def test_an_effect_is_found_and_its_interval_holds_it() -> None:
    (score,), truth = experts([1.0], 0)
    for row in scored(score, truth, permutations=300, bootstrap=300).values():
        assert row.low < row.value < row.high
        assert row.p == pytest.approx(1 / 301)


def test_interval_is_that_of_means_over_images() -> None:
    (score,), truth = experts([0.5], 3, n_images=100)
    row = scored(score, truth, permutations=0, bootstrap=2000)["top1"]
    error = hits(score, truth, 1).reshape(100, 12).mean(1).std() / 10
    assert np.isnan(row.p)
    assert row.high - row.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_order_of_the_gallery_is_nothing() -> None:
    (score,), truth = experts([0.5], 1)
    order = np.random.default_rng(0).permutation(20)
    moved = scored(score[:, order], np.argsort(order)[truth], permutations=0, bootstrap=200)
    for name, row in scored(score, truth, permutations=0).items():
        assert moved[name].value == pytest.approx(row.value)


def test_columns_that_are_never_true_stay_where_they_are() -> None:
    """A distractor better than all else: no permutation moves it, and top-1 is 0 in each."""
    (score,), truth = experts([1.0], 2)
    found = scored(np.concatenate([score, np.full((len(score), 1), 99.0)], axis=1), truth)
    assert (found["top1"].value, found["top1"].p) == (0.0, 1.0)
    assert found["top5"].p < 0.02


def test_concepts_score_the_mean_of_their_images() -> None:
    score, concepts = by_concept(np.array([[1.0, 2.0, 4.0], [0.0, 1.0, 5.0]]), np.array(["b", "a", "b"]))
    assert concepts.tolist() == ["a", "b"]
    assert score.tolist() == [[2.0, 2.5], [1.0, 2.5]]


def test_csls_by_hand() -> None:
    score = np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.0]])
    expected = 2 * score - np.array([[0.85], [0.45]]) - np.array([[0.55, 0.75, 0.05]])
    assert np.allclose(csls(score, k=2), expected)
    assert np.allclose(csls(score, k=10), 2 * score - score.mean(1, keepdims=True) - score.mean(0))


def test_transductive_scores_mend_a_hub() -> None:
    (score,), truth = experts([1.5], 4, repeats=1)
    score = score / 20
    hub = score + 0.6 * np.random.default_rng(0).standard_normal(20)
    plain = hits(hub, truth, 1).mean()
    assert hits(csls(hub), truth, 1).mean() > plain
    plan = sinkhorn(hub, 0.05, 500)
    assert hits(plan, truth, 1).mean() > plain
    assert np.allclose(np.exp(plan).sum(1), 1)
    assert np.allclose(np.exp(plan).sum(0), 1, atol=5e-3)


def turned(angle: float, noise: float, seed: int) -> tuple[Array, Array, Any]:
    """Predictions of 200 images' vectors, turned as a whole by angles of about this many radians, in noise."""
    rng = np.random.default_rng(seed)
    gallery = unit(rng.standard_normal((200, 64)) * np.linspace(2, 0.2, 64))
    skew = rng.standard_normal((64, 64))
    turn = scipy.linalg.expm(angle * (skew - skew.T) / 16)
    truth = np.arange(200)
    return unit(gallery[truth] @ turn + noise * rng.standard_normal((200, 64)) / 8), gallery, truth


def unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_an_unknown_turn_is_found_without_labels() -> None:
    predicted, gallery, truth = turned(20.0, 0.3, 0)
    assert hits(predicted @ gallery.T, truth, 1).mean() < 0.05
    assert hits(align(predicted, gallery), truth, 1).mean() > 0.95


def test_a_small_turn_is_turned_back_and_none_does_little_harm() -> None:
    for angle, gain in ((1.0, 0.05), (0.0, -0.03)):
        found = []
        for seed in range(3):
            predicted, gallery, truth = turned(angle, 2.0, seed)
            found.append([hits(s, truth, 1).mean() for s in (predicted @ gallery.T, align(predicted, gallery))])
        plain, aligned = np.mean(found, axis=0)
        assert aligned - plain > gain


def test_vectors_that_say_nothing_stay_at_chance() -> None:
    """And the order of gallery or decisions is nothing; nor do more dimensions than images matter."""
    rng, found = np.random.default_rng(0), []
    for _ in range(10):
        predicted, gallery = unit(rng.standard_normal((150, 80))), unit(rng.standard_normal((50, 80)))
        found.append(hits(align(predicted, gallery), np.arange(150) % 50, 1).mean())
    assert abs(np.mean(found) - 0.02) < 0.01
    rows, columns = rng.permutation(150), rng.permutation(50)
    moved = align(predicted[rows], gallery[columns])
    assert np.allclose(moved, align(predicted, gallery)[rows][:, columns], atol=1e-6)
    wide = np.concatenate([gallery, np.zeros((50, 300))], axis=1)
    assert np.allclose(align(np.concatenate([predicted, np.ones((150, 300))], axis=1), wide), align(predicted, gallery))


def test_calibration_finds_the_unit() -> None:
    (score, other), truth = experts([0.7, 1.0], 5, n_images=60)
    one, two = calibrate([score, 50 * other], truth)
    assert one == pytest.approx(1, rel=0.1)
    assert two == pytest.approx(50, rel=0.1)
    assert calibrate([np.zeros((60, 60))], np.arange(60)).tolist() == [1.0]
    loss = [-log_softmax(score, t)[np.arange(len(truth)), truth].mean() for t in (one / 1.3, one, one * 1.3)]
    assert loss[1] < min(loss[0], loss[2])


def test_two_experts_are_better_than_each() -> None:
    validation, truth = experts([0.6, 0.9], 6, n_images=100)
    test, test_truth = experts([0.6, 0.9], 7, n_images=100)
    scale = np.array([1.0, 30.0])
    temperatures = calibrate([s * c for s, c in zip(validation, scale, strict=True)], truth)
    fused = hits(fuse([s * c for s, c in zip(test, scale, strict=True)], temperatures), test_truth, 1)
    for score in test:
        difference, low, high = paired_difference(
            fused, hits(score, test_truth, 1), test_truth, 500, np.random.default_rng(0)
        )
        assert 0 < low < difference < high
    assert paired_difference(fused, fused, test_truth, 50, np.random.default_rng(0)) == (0.0, 0.0, 0.0)
