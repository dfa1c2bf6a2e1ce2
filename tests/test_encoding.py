"""The encoding model: equal to brute force, better than ridge where its assumptions hold, repeats as theory says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import Ridge

from synapse_diffusion.models.encoding import plan_encoding
from synapse_diffusion.models.linear import binned
from synapse_diffusion.models.ridge import plan_ridge

SENSORS, TIMES, WIDTH, DIMENSIONS = 6, 8, 2, 5
Floats = NDArray[np.float32]


class World:
    """Responses linear in image vectors, noise correlated over sensors and time; two people."""

    def __init__(self, noise: float = 0.6) -> None:
        n_features = SENSORS * TIMES
        self.rng = np.random.default_rng(0)
        self.weight = self.rng.standard_normal((2, DIMENSIONS, n_features))
        mixing = self.rng.standard_normal((n_features, n_features)) * np.geomspace(4, 0.2, n_features)[:, None]
        self.root = noise * mixing @ np.linalg.qr(self.rng.standard_normal((n_features, n_features)))[0]

    def images(self, n: int) -> Floats:
        return self.rng.standard_normal((n, DIMENSIONS)).astype(np.float32)

    def show(self, y_ND: Floats, person_N: NDArray[np.int64], k_repeats: int = 1) -> Floats:
        mean_NF = 3.0 + np.einsum("nd,ndf->nf", y_ND, self.weight[person_N])
        noise_NF = self.rng.standard_normal(mean_NF.shape) @ self.root / np.sqrt(k_repeats)
        return np.asarray((mean_NF + noise_NF).reshape(-1, SENSORS, TIMES), np.float32)


def trained(world: World, n: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    y, person = world.images(n), np.arange(n) % 2
    return world.show(y, person), y, person


def cosine(a: Floats, b: Floats) -> Floats:
    lengths = np.linalg.norm(a, axis=1, keepdims=True) * np.linalg.norm(b, axis=1)
    return np.asarray(a @ b.T / lengths)


@pytest.mark.parametrize("pooled", [False, True])
def test_scores_are_a_brute_force_log_density(pooled: bool) -> None:
    world = World()
    x, y, person = trained(world, 200)
    model = plan_encoding(x, y, person, 2, WIDTH, pooled=pooled).fit([0.3])
    gallery = world.images(7)
    seen, who = world.show(gallery[:4], np.array([0, 1, 0, 1])), np.array([0, 1, 0, 1])
    for k_repeats in (1, 3):
        found = model.scores(seen, who, gallery, k_repeats)
        for row, p in enumerate(who):
            mine = np.ones(200, bool) if pooled else person == p
            vectors, responses = y[mine].astype(np.float64), binned(x, WIDTH)[mine].astype(np.float64)
            unit = np.square(vectors - vectors.mean(0)).sum() / DIMENSIONS
            ridge = Ridge(0.3 * unit)
            residual = []
            for n in range(len(vectors)):  # really left out
                others = np.arange(len(vectors)) != n
                ridge.fit(vectors[others], responses[others])
                residual.append(responses[n] - ridge.predict(vectors[n : n + 1])[0])
            covariance = ledoit_wolf(np.array(residual), assume_centered=True)[0]
            predicted = ridge.fit(vectors, responses).predict(gallery.astype(np.float64))
            value = binned(seen, WIDTH)[row].astype(np.float64)
            true = [multivariate_normal(mean, covariance / k_repeats).logpdf(value) for mean in predicted]
            assert np.allclose(found[row] - found[row].mean(), np.array(true) - np.mean(true), atol=1e-3)


def test_repeats_of_an_image_are_left_out_together() -> None:
    world = World()
    y = np.repeat(world.images(40), [1, 2, 3, 2] * 10, axis=0)
    person = np.zeros(len(y), np.int64)
    x = world.show(y, person)
    model = plan_encoding(x, y, person, 1, WIDTH, pooled=False).fit([0.1])
    vectors, responses = y.astype(np.float64), binned(x, WIDTH).astype(np.float64)
    ridge = Ridge(0.1 * np.square(vectors - vectors.mean(0)).sum() / DIMENSIONS)
    residual = np.empty_like(responses)
    for image in np.unique(y, axis=0):
        mine = (y == image).all(1)
        residual[mine] = responses[mine] - ridge.fit(vectors[~mine], responses[~mine]).predict(vectors[mine])
    inverse = model.whiten_PFF[0].astype(np.float64) @ model.whiten_PFF[0].T
    assert np.allclose(inverse, np.linalg.inv(ledoit_wolf(residual, assume_centered=True)[0]), rtol=1e-3, atol=1e-6)
    ridge.fit(vectors, responses)
    assert np.allclose(model.weight_PDF[0], ridge.coef_.T, atol=1e-4)
    assert np.allclose(model.bias_PF[0], ridge.intercept_, atol=1e-4)


def test_it_identifies_better_than_ridge_by_cosine() -> None:
    world = World()
    x, y, person = trained(world, 4000)
    gallery, who = world.images(100), np.arange(100) % 2
    seen = world.show(gallery, who)
    encoding = plan_encoding(x, y, person, 2, WIDTH, pooled=False).fit().scores(seen, who, gallery)
    ridge = cosine(plan_ridge(x, y, person, 2, WIDTH, pooled=False).fit().predict(seen, who), gallery)
    right = [np.mean(scores.argmax(1) == np.arange(100)) for scores in (encoding, ridge)]
    assert right[0] > right[1] + 0.1
    assert right[1] > 0.03


def test_repeats_raise_two_way_identification_as_theory_says() -> None:
    """Two images at a whitened distance d are told apart in normal-cdf(d sqrt(k) / 2) of the trials."""
    world = World(noise=2.5)
    x, y, person = trained(world, 8000)
    model = plan_encoding(x, y, person, 2, WIDTH, pooled=False).fit()
    gallery = world.images(2)
    for k_repeats in (1, 4):
        shown = np.repeat([0, 1], 2000)
        who = np.zeros(4000, np.int64)
        scores = model.scores(world.show(gallery[shown], who, k_repeats), who, gallery, k_repeats)
        step = (gallery[1] - gallery[0]) @ model.weight_PDF[0] @ model.whiten_PFF[0]
        expected = ndtr(np.linalg.norm(step) * math.sqrt(k_repeats) / 2)
        assert 0.55 < expected < 0.98
        assert np.mean(scores.argmax(1) == shown) == pytest.approx(expected, abs=0.03)
        p = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
        assert p.max(1).mean() == pytest.approx(expected, abs=0.03)  # as sure as it is right


def test_one_for_all_is_one_of_one_person() -> None:
    world = World()
    x, y, person = trained(world, 100)
    pooled = plan_encoding(x, y, person, 2, WIDTH, pooled=True).fit()
    alone = replace(plan_encoding(x, y, 0 * person, 1, WIDTH, pooled=False).fit(), pooled=True)
    assert np.array_equal(pooled.scores(x, person, y), alone.scores(x, person, y))
    with pytest.raises(ValueError, match="person 2 has trials of 0 images"):
        plan_encoding(x, y, person, 3, WIDTH, pooled=False).fit()
