"""Time-resolved decoding and similarity: an effect is found when it is there, and by chance as often as p says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from synapse_diffusion.metrics import (
    auc,
    cross_validated_rdm,
    lda_log_probability,
    max_statistic_p,
    null_areas,
    null_ranks,
    rdm,
    ridge_scores,
    rsa,
    split_half_reliability,
    temporal_generalisation,
    time_resolved,
    time_resolved_ridge,
)
from synapse_diffusion.metrics.dynamics import _ridge

Array = NDArray[np.float64]
START, STOP = 12, 20  # samples of 30 in which pictures are answered


def epochs(seed: int, strength: float, n_classes: int = 3) -> tuple[Array, Any, Any]:
    """Trials (240, 8, 30) of 24 concepts, with the concept's and the class's pattern from START to STOP."""
    truth, rng = np.random.default_rng(99), np.random.default_rng(seed)
    concept = np.repeat(np.arange(24), 10)
    pattern = truth.standard_normal((n_classes, 8))[np.arange(24) % n_classes] + truth.standard_normal((24, 8)) / 2
    x = rng.standard_normal((240, 8, 30))
    x[:, :, START:STOP] += strength * pattern[concept][:, :, None]
    return x, concept % n_classes, concept


@pytest.mark.parametrize("n_classes", [2, 3])
def test_effect_is_found_in_its_bins_alone(n_classes: int) -> None:
    train, train_label, _ = epochs(0, 0.6, n_classes)
    test, label, concept = epochs(1, 0.6, n_classes)
    area, centre = time_resolved(train, train_label, test, label, 4)
    assert centre.tolist() == [1.5, 5.5, 9.5, 13.5, 17.5, 21.5, 25.5]
    score, _ = lda_log_probability(train, train_label, test, 4)
    assert area == pytest.approx([auc(of_bin, label) for of_bin in score])
    null = null_areas(score, label, concept, 500, np.random.default_rng(0))
    assert ((max_statistic_p(area, null) < 0.05) == [False, False, False, True, True, False, False]).all()
    assert np.abs(null.mean(0) - 0.5).max() < 0.02


def test_decoders_are_shrinkage_lda() -> None:
    train, label, _ = epochs(0, 0.3)
    score, _ = lda_log_probability(train, label, train, 30)
    x = train.mean(2)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, label).predict_proba(x)
    # not equal: scikit-learn shrinks each class by itself
    assert np.corrcoef(theirs.ravel(), np.exp(score[0]).ravel())[0, 1] > 0.99
    with pytest.raises(ValueError, match="two or more"):
        time_resolved(train, np.where(np.arange(240) == 0, 3, label), train, label, 4)
    with pytest.raises(ValueError, match="does not fit"):
        time_resolved(train, label, train, label, 31)


def test_null_is_what_shuffled_labels_give() -> None:
    train, train_label, _ = epochs(0, 0.6)
    test, label, concept = epochs(1, 0.6)
    score, _ = lda_log_probability(train, train_label, test, 6)
    fast = null_areas(score, label, concept, 20, np.random.default_rng(3))
    dealt = np.random.default_rng(3).permuted(np.tile(np.arange(24), (20, 1)), axis=1)
    slow = [[auc(of_bin, (row % 3)[concept]) for of_bin in score] for row in dealt]
    assert fast == pytest.approx(np.array(slow))
    with pytest.raises(ValueError, match="several classes"):
        null_areas(score, label, np.zeros_like(concept), 5, np.random.default_rng(0))


def test_generalisation_has_the_curve_on_its_diagonal() -> None:
    train, train_label, _ = epochs(0, 0.6)
    test, label, _ = epochs(1, 0.6)
    area, _ = temporal_generalisation(train, train_label, test, label, 4)
    assert np.diag(area) == pytest.approx(time_resolved(train, train_label, test, label, 4)[0])
    assert min(area[3, 4], area[4, 3]) > 0.75  # one pattern, for as long as it lasts
    assert np.abs(area[:3] - 0.5).max() < 0.15


def test_family_wise_error_is_held() -> None:
    found = []
    for seed in range(60):
        train, train_label, _ = epochs(seed, 0.0)
        test, label, concept = epochs(1000 + seed, 0.0)
        area, _ = time_resolved(train, train_label, test, label, 6)
        score, _ = lda_log_probability(train, train_label, test, 6)
        null = null_areas(score, label, concept, 99, np.random.default_rng(seed))
        found.append(max_statistic_p(area, null).min() <= 0.2)
    assert 0.05 < np.mean(found) < 0.37


def test_largest_statistic_by_hand() -> None:
    null = np.array([[0.1, 0.3], [0.2, 0.0], [0.5, 0.1], [0.0, 0.1]])
    assert max_statistic_p(np.array([0.6, 0.3, 0.0]), null).tolist() == [0.2, 0.6, 1.0]
    assert max_statistic_p(np.full((2, 3), 0.4), null.reshape(4, 1, 2)).tolist() == [[0.4] * 3] * 2


def test_ridge_ranks_the_right_picture_when_there_is_a_response() -> None:
    train, _, concept = epochs(0, 0.8)
    test, _, truth = epochs(1, 0.8)
    train_mean, _, _ = epochs(2, 200.0)
    gallery = train_mean[::10, :, 15] @ np.random.default_rng(0).standard_normal((8, 20)) + 5
    rank, centre = time_resolved_ridge(train, gallery[concept], test, gallery, truth, 4)
    score, _ = ridge_scores(train, gallery[concept], test, gallery, 4)
    null = null_ranks(score, truth, 300, np.random.default_rng(0))
    p = max_statistic_p(0.5 - rank, 0.5 - null)
    assert centre[3] == 13.5
    assert ((p < 0.05) == [False, False, False, True, True, False, False]).all()
    assert rank[3] < 0.2
    assert np.abs(null.mean(0) - 0.5).max() < 0.02


def test_ridge_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 8))
    y = x @ rng.standard_normal((8, 3)) + 4 * rng.standard_normal((60, 3))
    x, y = x - x.mean(0), y - y.mean(0)
    weights = _ridge(x, y)
    unit = np.square(x).sum() / 8
    theirs = [Ridge(alpha=10 ** (k / 2) * unit, fit_intercept=False).fit(x, y).coef_.T for k in range(-6, 7)]
    assert min(np.abs(weights - of_one).max() for of_one in theirs) < 1e-9
    assert np.linalg.norm(weights) < 0.99 * np.linalg.norm(theirs[0])  # noise asks for some penalty


def test_dissimilarities_by_hand() -> None:
    x = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0]])
    assert rdm(x) == pytest.approx(np.array([[0.0, 0, 2], [0, 0, 2], [2, 2, 0]]), abs=1e-12)
    assert rdm(x, "sqeuclidean")[0, 1] == 14
    first, second = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    first[1, :, 2], second[1, :, 2] = (2.0, 1.0), (3.0, -2.0)
    distance = cross_validated_rdm(first, second)
    assert distance.shape == (3, 2, 2)
    assert distance[2].tolist() == [[0, 2], [2, 0]]  # (2 x 3 - 1 x 2) / 2 sensors
    assert not distance[:2].any()


def test_cross_validated_distances_of_noise_are_zero_on_average() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 30, 10, 40))
    off = cross_validated_rdm(first, second)[:, ~np.eye(30, dtype=bool)]
    assert abs(off.mean()) < 0.02
    assert 0.3 < (off < 0).mean() < 0.7


def test_similarity_to_a_model_is_spearmans_and_found_in_time() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((16, 6))
    model = rdm(vectors, "euclidean")
    signal = rng.standard_normal((2, 16, 6, 10))
    signal[:, :, :, 6:8] += vectors[:, :, None]
    brain = cross_validated_rdm(signal[0], signal[1])
    r, p, limit = rsa(brain, model, 200, rng)
    assert ((r > limit) == (p <= 0.05)).all()
    upper = np.triu_indices(16, 1)
    assert r == pytest.approx([spearmanr(one[upper], model[upper]).statistic for one in brain])
    assert ((p < 0.05) == np.isin(np.arange(10), [6, 7])).all()
    order = rng.permutation(16)
    assert rsa(brain[:, order][:, :, order], model[order][:, order], 0, rng)[0] == pytest.approx(r)


def test_similarity_by_chance() -> None:
    p = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        brain = np.stack([rdm(rng.standard_normal((12, 3)), "euclidean") for _ in range(4)])
        p.append(rsa(brain, rdm(rng.standard_normal((12, 3)), "euclidean"), 99, rng)[1].min())
    assert 0.05 < np.mean(np.array(p) <= 0.2) < 0.37


def test_reliability_is_the_share_of_signal_in_the_mean() -> None:
    rng = np.random.default_rng(0)
    common = 50 * rng.standard_normal((20, 6))  # of all images: counts for nothing
    groups = []
    for _ in range(60):
        own = rng.standard_normal((20, 6)) * np.array([0, 0, 0, 1, 1, 1])
        groups.append(common + own + 3 * rng.standard_normal((9, 20, 6)))
    expected = 1 / (1 + 9 / 8)  # of eight trials a draw uses, noise variance 9 each
    found = split_half_reliability(groups, 40, rng)
    assert found[3:] == pytest.approx([expected] * 3, abs=0.05)
    assert np.abs(found[:3]).max() < 0.1
    assert split_half_reliability([g[:1].repeat(4, axis=0) for g in groups], 2, rng) == pytest.approx(np.ones(6))
    with pytest.raises(ValueError, match="two"):
        split_half_reliability([groups[0], groups[1][:1]], 2, rng)


def test_what_a_sequence_adds_to_all_images_makes_no_reliability() -> None:
    """Each sequence shows every image once and has its own offset: halves dealt image by image would be opposite."""
    rng = np.random.default_rng(0)
    offset = 3 * rng.standard_normal((8, 5, 4))
    groups = [offset + rng.standard_normal((8, 5, 4)) for _ in range(40)]
    assert np.abs(split_half_reliability(groups, 20, rng)).max() < 0.35
    signal = [group + 2 * rng.standard_normal((1, 5, 4)) for group in groups]
    assert split_half_reliability(signal, 20, rng).min() > 0.9
