"""Metrics between pictures: published definitions, independent implementations, and that no knowledge is chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from synapse_diffusion.metrics import (
    classes_of,
    colour_score,
    correlations,
    distance_table,
    feature_distance,
    flattened,
    n_way_table,
    paired_difference,
    retrieval_scores,
    table_score,
    two_way_table,
    two_way_within,
)
from synapse_diffusion.metrics.pictures import mean_colour, pixcorr, pixcorr_table, resized, ssim, ssim_table

Array = NDArray[np.float64]
GOLDEN_SSIM = (
    0.84146970  # scikit-image 0.26.0: structural_similarity(rgb2gray(a), rgb2gray(b), ...) with the field's arguments
)
DRAWS: dict[str, Any] = {"permutations": 200, "bootstrap": 200}


def pictures(n: int, seed: int, size: int = 40) -> torch.Tensor:
    """Coloured blobs in 0..1."""
    noise = np.random.default_rng(seed).standard_normal((n, 3, size, size))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 3, 3))
    return torch.from_numpy(np.clip(0.5 + smooth / smooth.std() / 4, 0, 1)).float()


def half_known(n: int = 40, d: int = 30, seed: int = 0, known: float = 0.5) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    true = rng.standard_normal((n, d))
    return known * true + rng.standard_normal((n, d)), true


def ssim_by_scipy(a_3HW: Array, b_3HW: Array, data_range: float = 1.0) -> float:
    """The procedure of scikit-image 0.26 for `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`."""
    a, b = (np.tensordot([0.2125, 0.7154, 0.0721], x.astype(float), 1) for x in (a_3HW, b_3HW))

    def mean(x: Array) -> Array:
        return np.asarray(ndimage.gaussian_filter(x, 1.5, truncate=3.5))

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    ma, mb = mean(a), mean(b)
    va, vb, vab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    value = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(value[5:-5, 5:-5].mean())


def test_ssim_is_that_of_the_field() -> None:
    a, b = pictures(3, 0), pictures(3, 1)
    b = 0.6 * a + 0.4 * b
    found = ssim(b, a, size=None)
    expected = [ssim_by_scipy(x.numpy(), y.numpy()) for x, y in zip(a, b, strict=True)]
    assert np.allclose(found, expected, atol=1e-6)
    wave = np.sin(np.arange(3 * 24 * 24).reshape(1, 3, 24, 24) * 0.37)
    golden = ssim(0.5 + 0.4 * wave, 0.5 + 0.3 * wave**3, size=None)
    assert golden == pytest.approx([GOLDEN_SSIM], abs=1e-6)
    wrong = ssim_by_scipy(a[0].numpy(), pictures(1, 5)[0].numpy(), data_range=255.0)
    assert wrong > 0.99 > 0.3 > ssim(pictures(1, 5), a[:1], size=None)[0]  # constants of 8 bits on pictures in 0..1


def test_ssim_of_known_cases() -> None:
    a = pictures(2, 0)
    assert np.allclose(ssim(a, a), 1, atol=1e-9)
    dark, light = (torch.full((1, 3, 20, 20), value) for value in (0.2, 0.7))
    assert ssim(dark, light) == pytest.approx([(2 * 0.14 + 1e-4) / (0.04 + 0.49 + 1e-4)], abs=1e-5)
    black, white = torch.zeros(1, 3, 20, 20), torch.ones(1, 3, 20, 20)
    assert ssim(black, white) == pytest.approx([1e-4 / (1 + 1e-4)], abs=1e-6)
    assert np.allclose(ssim(a, a.flip(0)), ssim(a.flip(0), a))
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(black[..., :8, :8], white[..., :8, :8], size=None)
    with pytest.raises(ValueError, match=r"0\.\.1, got 0 to 255"):
        ssim(white * 255 * torch.tensor([0.0, 1.0, 1.0]).reshape(1, 3, 1, 1), white)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        ssim(white * torch.nan, white)
    with pytest.raises(ValueError, match="not of pictures"):
        ssim(white, torch.cat([white, black]))


def test_pixcorr_is_pearson_of_the_resized_pictures() -> None:
    from PIL import Image

    a, b = pictures(3, 0), pictures(3, 1)
    expected = [np.corrcoef(x.flatten(), y.flatten())[0, 1] for x, y in zip(a, b, strict=True)]
    assert np.allclose(pixcorr(b, a, size=None), expected, atol=1e-6)
    assert np.allclose(pixcorr(1 - a, a), -1)
    assert pixcorr(torch.full((3, 3, 40, 40), 0.3), a).tolist() == [0.0, 0.0, 0.0]
    for size in (17, 425):  # smaller and larger
        eight_bits = (a[0] * 255).round().to(torch.uint8)
        pillow = Image.fromarray(eight_bits.permute(1, 2, 0).numpy()).resize((size, size), Image.Resampling.BILINEAR)
        ours = resized(eight_bits[None] / 255, size)[0].permute(1, 2, 0)
        assert np.abs(np.asarray(pillow) / 255 - ours.numpy()).max() < 0.005


def test_tables_hold_every_pair_and_samples_are_averaged_after_scoring() -> None:
    a, b, c = pictures(5, 0), pictures(5, 1), pictures(5, 2)
    both = torch.stack([b, c], 1)
    for one, table in ((ssim, ssim_table), (pixcorr, pixcorr_table)):
        found = table(b, a, size=24)
        by_hand = [one(b[[k]].expand(5, -1, -1, -1), a, size=24) for k in range(5)]
        assert np.allclose(found, by_hand)
        assert np.allclose(np.diagonal(found), one(b, a, size=24))
        assert np.allclose(one(both, a, size=24), (one(b, a, size=24) + one(c, a, size=24)) / 2)
        assert np.allclose(table(both, a, size=24), (found + table(c, a, size=24)) / 2)
        assert not np.allclose(one(both, a, size=24), one((b + c) / 2, a, size=24), atol=1e-3)


def test_two_way_is_that_of_the_published_code() -> None:
    recon, true = half_known()
    r = np.corrcoef(true, recon)[:40, 40:]
    theirs = (r < np.diag(r)).sum(0).mean() / 39
    table = two_way_table(recon, true)
    assert np.diagonal(table).mean() == pytest.approx(theirs)
    score, truth, unit = flattened(recon, true, np.arange(40))
    rank = retrieval_scores(score, truth, unit, **DRAWS, rng=np.random.default_rng(0))[2]
    assert theirs == pytest.approx(1 - rank.value)
    assert 0.8 < theirs < 1
    several = np.stack([recon, half_known(seed=1)[0], recon], 1)
    assert np.allclose(two_way_table(several, true), np.mean([two_way_table(several[:, s], true) for s in range(3)], 0))
    assert np.diagonal(two_way_table(true, true)).tolist() == [1.0] * 40


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 8),
    d=st.integers(2, 4),
    seed=st.integers(0, 999),
    levels=st.integers(1, 3),
    groups=st.integers(1, 3),
)
def test_pictures_that_know_nothing_are_at_one_half(n: int, d: int, seed: int, levels: int, groups: int) -> None:
    """Over all ways to deal any pictures to targets, and for one picture given to all: exactly, ties and all."""
    rng = np.random.default_rng(seed)
    true, recon = (rng.integers(0, levels + 1, (n, d)).astype(float) for _ in range(2))  # equal and flat rows occur
    table = two_way_table(recon, true)
    assert np.allclose(table.mean(1), 0.5)
    constant = np.tile(recon[:1], (n, 1))
    assert np.diagonal(two_way_table(constant, true)).mean() == pytest.approx(0.5)
    category = rng.integers(0, groups, n)
    within, kept = two_way_within(constant, true, category)
    assert kept.tolist() == [int((category == c).sum()) > 1 for c in category]
    if kept.any():
        assert np.diagonal(within).mean() == pytest.approx(0.5)
        blocks = two_way_within(recon, true, category)[0]
        same = category[kept][:, None] == category[kept]
        assert np.isnan(blocks[~same]).all()
        assert np.nansum(blocks, 1) / same.sum(1) == pytest.approx(np.full(len(blocks), 0.5))


def test_p_of_pictures_that_know_nothing_is_uniform_and_knowledge_is_found() -> None:
    unit = np.arange(30)
    values, p = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        true, recon = rng.standard_normal((30, 8)), 0.3 * rng.standard_normal((30, 8)) + rng.standard_normal(8)
        score = table_score("two_way", two_way_table(recon, true), unit, **DRAWS, rng=rng)
        assert score.chance == pytest.approx(0.5)
        values.append(score.value)
        p.append(score.p)
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)
    assert np.mean(p) == pytest.approx(0.5, abs=0.15)
    assert np.mean(np.array(p) <= 0.1) < 0.25
    recon, true = half_known(30)
    score = table_score("two_way", two_way_table(recon, true), unit, **DRAWS, rng=np.random.default_rng(0))
    assert score.p == pytest.approx(1 / 201)
    assert 0.5 < score.low < score.value < score.high < 1
    distance = table_score(
        "SwAV", distance_table(recon, true), unit, lower_is_better=True, **DRAWS, rng=np.random.default_rng(0)
    )
    assert distance.p == pytest.approx(1 / 201)
    assert distance.value == pytest.approx(feature_distance(recon, true).mean())
    assert distance.value < distance.low + 0.2 < distance.chance


def test_knowing_the_category_alone_is_chance_within_it() -> None:
    rng = np.random.default_rng(0)
    category = np.repeat(np.arange(6), 6)
    centre = 3 * rng.standard_normal((6, 20))
    true = centre[category] + rng.standard_normal((36, 20))
    recon = centre[category] + rng.standard_normal((36, 20))
    assert np.diagonal(two_way_table(recon, true)).mean() > 0.9
    table, kept = two_way_within(recon, true, category)
    score = table_score(
        "two_way_within", table, np.arange(36), exchange_K=category[kept], **DRAWS, rng=np.random.default_rng(1)
    )
    assert score.chance == pytest.approx(0.5)
    assert abs(score.value - 0.5) < 0.15
    assert score.p > 0.05
    with pytest.raises(ValueError, match="exchange_K"):
        table_score("two_way_within", table, np.arange(36), **DRAWS, rng=rng)
    alone = two_way_within(recon[[0, 1, 6]], true[[0, 1, 6]], category[[0, 1, 6]])
    assert alone[1].tolist() == [True, True, False]
    nobody, _ = two_way_within(recon[::6], true[::6], category[::6])
    with pytest.raises(ValueError, match="alone in its category"):
        table_score("two_way_within", nobody, np.arange(0), **DRAWS, rng=rng)


def test_distance_is_one_minus_correlation() -> None:
    from scipy.spatial.distance import correlation

    recon, true = half_known(6)
    expected = [correlation(a, b) for a, b in zip(recon, true, strict=True)]
    assert np.allclose(feature_distance(recon, true), expected)
    assert np.allclose(distance_table(recon, true), 1 - correlations(recon, true))
    assert np.allclose(feature_distance(np.stack([recon, true], 1), true), np.array(expected) / 2)
    with pytest.raises(ValueError, match="not finite"):
        correlations(recon * np.nan, true)


@pytest.mark.parametrize(("n", "top"), [(2, 1), (10, 1), (10, 5), (12, 3)])
def test_n_way_is_the_mean_of_all_draws(n: int, top: int) -> None:
    """Against drawing distractors, ties in random order."""
    rng = np.random.default_rng(0)
    logits = np.round(rng.standard_normal((6, 12)), 1)
    logits[1, :] = 0.0
    target = np.array([3, 0, 11, 5, 5, 2])
    draws = np.zeros(6)
    for _ in range(4000):
        for k in range(6):
            others = rng.permutation(np.delete(np.arange(12), target[k]))[: n - 1]
            shown = logits[k, [target[k], *others]] + 1e-6 * rng.random(n)
            draws[k] += (shown > shown[0]).sum() < top
    table = n_way_table(logits, target, n, top)
    assert np.diagonal(table) == pytest.approx(draws / 4000, abs=0.04)
    assert table[1] == pytest.approx(np.full(6, top / n))
    assert n_way_table(logits, np.arange(12), n, top).mean(1) == pytest.approx(np.full(6, top / n))
    assert np.allclose(n_way_table(np.stack([logits, logits], 1), target, n, top), table)
    assert n_way_table(logits, classes_of(logits), 2)[0, 0] == 1.0
    with pytest.raises(ValueError, match="top < n"):
        n_way_table(logits, target, 13, 1)


def test_retrieval_finds_the_true_picture_from_every_sample() -> None:
    recon, true = half_known(known=1.0)
    both = np.stack([recon, np.roll(recon, 1, 0)], 1)  # the second sample is of another picture
    found = retrieval_scores(*flattened(both, true, np.arange(40)), **DRAWS, rng=np.random.default_rng(0))
    right = retrieval_scores(*flattened(recon, true, np.arange(40)), **DRAWS, rng=np.random.default_rng(0))
    assert (found[0].n, right[0].n) == (80, 40)
    assert right[0].value > 0.6
    assert abs(found[0].value - right[0].value / 2) < 0.05


def test_mean_colour_is_correlated_over_pictures() -> None:
    rng = np.random.default_rng(0)
    shown = pictures(30, 0) * torch.from_numpy(rng.uniform(0.2, 1, (30, 3, 1, 1))).float()
    colour = mean_colour(shown)
    other = 0.3 + 0.3 * colour + 0.01 * rng.standard_normal((30, 3))
    assert np.allclose(colour, shown.mean((2, 3)), atol=1e-6)
    expected = np.mean([np.corrcoef(colour[:, c], other[:, c])[0, 1] for c in range(3)])
    score = colour_score(other, colour, np.arange(30), **DRAWS, rng=rng)
    assert score.value == pytest.approx(expected)
    assert score.p == pytest.approx(1 / 201)
    assert score.chance == 0.0
    assert score.low < score.value < score.high
    flat = colour_score(np.full((30, 3), 0.4), colour, np.arange(30), **DRAWS, rng=rng)
    assert (flat.value, flat.p) == (0.0, 1.0)
    samples = colour_score(np.stack([other, other[::-1]], 1), colour, np.arange(30), **DRAWS, rng=rng)
    assert samples.value < score.value


def test_brain_beside_no_brain_is_paired_by_picture() -> None:
    recon, true = half_known()
    blind, _ = half_known(seed=3)
    brain, none = (np.diagonal(two_way_table(x, true)) for x in (recon, blind))
    difference, low, high = paired_difference(brain, none, np.arange(40), 500, np.random.default_rng(0))
    assert difference == pytest.approx(brain.mean() - none.mean())
    assert 0 < low < difference < high
