"""Conditions of pictures: their axes, how sure a brain is of them, and the prior between the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import quiet
from synapse_diffusion.config import (
    ExecutionSettings,
    PriorSettings,
    parse_recipe,
)
from synapse_diffusion.reconstruct.prior import fit_prior, sample_prior
from synapse_diffusion.reconstruct.tables import dealt
from synapse_diffusion.training.brain import Calibration, Predictor
from synapse_diffusion.training.conditions import Axes, accuracies, doubted


def test_doubted_conditions_are_calibrated() -> None:
    """Variance r^2, and their regression on the truth back has slope one, whatever r."""
    draws = torch.Generator().manual_seed(0)
    z, noise = torch.randn(200_000, 3, generator=draws), torch.randn(200_000, 3, generator=draws)
    for share in (0.2, 0.7, 1.0):
        r_13 = accuracies(torch.tensor([[share]]), torch.tensor([[4.0]]), 3)
        c, r = doubted(z, r_13, noise), share * torch.exp(-torch.arange(3) / 4.0)
        assert torch.allclose(c.var(0), r**2, rtol=0.03)
        assert torch.allclose((c * z).mean(0) / c.square().mean(0), torch.ones(3), atol=0.03)
        assert torch.allclose((z - c).var(0), 1 - r**2, atol=0.02)


def test_axes_whiten_and_come_back() -> None:
    x = np.random.default_rng(0).standard_normal((50, 7)) @ np.diag([5, 4, 3, 2, 1, 0.5, 0.1]) + 3
    axes = Axes.fit(x, 7)
    z = axes.into(x)
    assert np.allclose(z.T @ z / 50, np.eye(7), atol=1e-3)
    assert np.allclose(axes.back(z), x, atol=1e-3)
    assert Axes.fit(np.repeat(x[:, :1], 7, 1), 7).into_DE.shape == (7, 1)  # rank one


def expected_of(fitted: Calibration, p: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """What one expects of the truth, given means of k predictions."""
    told, precision = fitted.evidence(p, np.full(len(p), k))
    return np.asarray(told / (1 / fitted.truth_D + precision))


def test_calibration_knows_what_averaging_does() -> None:
    """Fitted on single trials, 3 a picture, it holds for means of 1 and of 8 of other pictures."""
    rng = np.random.default_rng(1)
    gain, misfit, noise = np.array([0.5, 0.1, 0.0]), 0.2, 0.6

    def study(n: int, k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        c = rng.standard_normal((n, 1, 3))
        p = gain * c + misfit * rng.standard_normal((n, 1, 3)) + noise * rng.standard_normal((n, k, 3))
        return p, np.broadcast_to(c, p.shape)

    p, c = study(4000, 3)
    fitted = Calibration.fit(p.reshape(-1, 3), c.reshape(-1, 3), np.repeat(np.arange(4000), 3))
    for k in (1, 8):
        p, c = study(20_000, k)
        expected = expected_of(fitted, p.mean(1), k)
        slope = (expected * c[:, 0]).mean(0) / np.maximum((expected**2).mean(0), 1e-4)
        assert np.allclose(slope[:2], 1, atol=0.12)
        assert (expected[:, 2] ** 2).mean() < 0.01


def test_calibration_of_few_repeats_is_not_too_sure() -> None:
    """Validation of held-out sequences repeats few pictures: what stays the same from repeat to repeat still counts."""
    rng = np.random.default_rng(4)
    picture_N = np.r_[np.arange(1000), np.arange(120)]
    c, misfit = rng.standard_normal((1000, 64)), 0.2 * rng.standard_normal((1000, 64))
    p = (0.3 * c + misfit)[picture_N] + 0.6 * rng.standard_normal((1120, 64))
    fitted = Calibration.fit(p.astype(np.float32), c[picture_N].astype(np.float32), picture_N)
    c = rng.standard_normal((20_000, 64))
    p = 0.3 * c + np.hypot(0.2, 0.6 / np.sqrt(12)) * rng.standard_normal(c.shape)
    expected = expected_of(fitted, p, 12)
    assert abs((expected * c).mean() / np.square(expected).mean() - 1) < 0.1


def test_evidence_of_two_recordings_adds_up() -> None:
    """What is expected from both is right on average, and as good as independent noise allows."""
    rng = np.random.default_rng(2)
    c = rng.standard_normal((30_000, 2))
    told = []
    for gain, noise in ((0.5, 0.5), (0.2, 0.4)):
        p = gain * c + noise * rng.standard_normal(c.shape)
        fitted = Calibration.fit(p[:9000].astype(np.float32), c[:9000].astype(np.float32), np.arange(9000))
        told.append(fitted.evidence(p[9000:], np.ones(21_000, np.int64)))
    rest, axes = c[9000:], {"semantic": Axes.fit(c[:100], 2)}
    both, left = Predictor({}, np.ones(2), axes, np.eye(2)).expected(told)
    assert np.allclose((both * rest).mean(0) / np.square(both).mean(0), 1, atol=0.05)
    assert np.allclose(left, 1 / (1 + 1 + 0.25), atol=0.03)
    assert np.allclose(np.square(rest - both).mean(0), left[0], atol=0.03)


def test_no_row_is_dealt_to_itself() -> None:
    person = np.array(["a"] * 5 + ["b"] * 2)
    other = dealt(person, 3)
    assert sorted(other) == list(range(7))
    assert (other != np.arange(7)).all()
    assert (person[other] == person).all()


@pytest.mark.slow
def test_a_prior_learns_what_was_left_open(tmp_path: Path) -> None:
    """Half of the truth is said, half is a sign that is not: samples have that half at both ends, not in the middle."""
    rng = np.random.default_rng(0)
    said = np.repeat(rng.standard_normal((3000, 1)), 2, 1).astype(np.float32) * [1, 0]
    true = said + np.stack([np.zeros(3000), np.where(rng.random(3000) < 0.5, 1.5, -1.5)], 1)
    pairs = (said.astype(np.float32), true.astype(np.float32), rng.integers(0, 4, 3000))
    settings = PriorSettings(steps=400, width=64, depth=2, learning_rate=3e-3, sampling_steps=12)
    path = tmp_path / "prior.safetensors"
    learner = fit_prior(pairs, settings, ExecutionSettings(), path, quiet)
    asked = np.array([[1.0, 0.0]] * 200 + [[-1.0, 0.0]] * 200, dtype=np.float32)
    images = [f"i{k}" for k in range(400)]
    found = sample_prior(learner, asked, images, np.zeros(400, np.int64), 0, settings)
    assert np.abs(found[:, 0] - asked[:, 0]).mean() < 0.25
    assert (np.abs(np.abs(found[:, 1]) - 1.5) < 0.5).mean() > 0.75
    assert 0.3 < (found[:, 1] > 0).mean() < 0.7
    again = sample_prior(fit_prior(pairs, settings, ExecutionSettings(), path, quiet), asked[7:9], images[7:9],
                         np.zeros(2, np.int64), 0, settings)  # fmt: skip
    assert np.allclose(again, found[7:9], atol=1e-4)


PRIOR = (
    "width=24", "depth=2", "dropout=0.6", "steps=9", "batch=16", "learning_rate=0.01", "weight_decay=1.0", "ema=0.5",
    "seed=1", "sampling_steps=3", "guidance=3.0",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("setting", PRIOR)
def test_every_setting_of_the_prior_is_noticed(tmp_path: Path, setting: str) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200, 4)).astype(np.float32)
    short = ["prior.steps=12", "prior.checks=3", "prior.width=16", "prior.depth=1", "prior.sampling_steps=4"]
    found = []
    for number, more in enumerate(([], [f"prior.{setting}"])):
        settings = parse_recipe({}, [*short, *more]).prior
        path = tmp_path / f"{number}.safetensors"
        learner = fit_prior((z, z, np.arange(200) % 4), settings, ExecutionSettings(), path, quiet)
        found.append(sample_prior(learner, z[:5], list("abcde"), np.zeros(5, np.int64), 0, settings))
    assert not np.array_equal(found[0], found[1])


def test_a_brain_that_says_nothing_is_no_better_than_none() -> None:
    """With noise for predictions, calibration shrinks them to nothing: what is drawn is what no brain gives."""
    rng = np.random.default_rng(0)
    p, c = rng.standard_normal((6000, 5)), np.repeat(rng.standard_normal((2000, 5)), 3, 0)
    fitted = Calibration.fit(p.astype(np.float32), c.astype(np.float32), np.repeat(np.arange(2000), 3))
    one = np.ones((1, 5))
    assert (np.abs(expected_of(fitted, one, 12)) < 0.35).all()
    assert (expected_of(fitted, one, 1) < 0.05).all()
