"""The simulated study: reproducible, in the real form, true to its own truth; observers that are ideal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from conftest import quiet, small
from synapse_diffusion.bids.truth import read_truth
from synapse_diffusion.errors import DataError
from synapse_diffusion.evaluate import observer_epochs, person_observer
from synapse_diffusion.metrics import NoiseModel, Observer
from synapse_diffusion.simulate import simulate
from synapse_diffusion.simulate.pictures import CATEGORIES, draw_picture
from synapse_diffusion.training.data import open_epochs, open_stores


def test_same_seed_same_bytes(study: Path, tmp_path: Path) -> None:
    simulate(small(tmp_path), quiet, quiet)
    for path in sorted((study / "bids").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "bids" / path.relative_to(study / "bids")).read_bytes(), path
    with pytest.raises(DataError, match="holds another study"):
        simulate(small(tmp_path, "simulate.seed=1"), quiet, quiet)


def test_events_have_the_real_columns(study: Path, real: Path) -> None:
    ours = pd.read_csv(study / "bids/sub-01/eeg/sub-01_task-rsvp_events.tsv", sep="\t")
    theirs = pd.read_csv(real / "bids/ds003825-1.2.0/sub-02/eeg/sub-02_task-rsvp_events.tsv", sep="\t", nrows=5)
    assert list(ours.columns) == list(theirs.columns)


def test_pictures_differ_to_the_eye() -> None:
    drawn = [
        draw_picture(concept, k, 0, 48).astype(float) for c in list(CATEGORIES)[:4] for concept in CATEGORIES[c]
        for k in range(3)
    ]  # fmt: skip
    flat = np.stack([picture.ravel() for picture in drawn])
    distance = np.abs(flat[:, None] - flat[None]).mean(-1)[~np.eye(len(flat), dtype=bool)]
    assert distance.min() > 8  # of 255, mean over pixels and colours


def test_truth_is_what_was_recorded(study: Path) -> None:
    recipe = small(study)
    epochs = open_epochs(open_stores(recipe, quiet), recipe, "cpu")
    truth = read_truth(study / "bids", "01")
    assert truth is not None
    rows = np.flatnonzero(epochs.trials["person"] == "01")
    responses = np.stack([truth.response(image, epochs.times) for image in epochs.trials["image_id"].iloc[rows]])
    responses -= responses.mean(1, keepdims=True)
    responses -= responses.mean(0)
    x = epochs.read(rows).numpy() - epochs.read(rows).numpy().mean(0)
    # trial-by-trial latency smears the mean response, most at its late stage
    assert 0.75 < (responses * x).sum() / (responses**2).sum() < 1.05


def test_identification_observer_is_far_above_chance_and_calibrated(study: Path) -> None:
    recipe = small(study)
    epochs = open_epochs(open_stores(recipe, quiet), recipe, "cpu")
    truth = read_truth(study / "bids", "01")
    assert truth is not None
    observer, width = person_observer(truth, epochs, recipe)
    trials = epochs.trials
    rows = np.flatnonzero((trials["person"] == "01") & (trials["is_test"] == 1))
    images = sorted(set(trials["image_id"].iloc[rows]))
    candidates = np.array([truth.images.index(image) for image in images])
    log_p = observer.identify(observer_epochs(epochs, [np.array([row]) for row in rows], width), candidates)
    true = trials["image_id"].iloc[rows].map(images.index).to_numpy()
    p = np.exp(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))
    accuracy = np.mean(p.argmax(1) == true)
    assert accuracy > 3 / len(images)
    assert p.max(1).mean() == pytest.approx(accuracy, abs=0.15)  # as sure as it is right


def toy() -> tuple[Observer, NDArray[np.float64], NoiseModel, NDArray[np.float64]]:
    """Three images, two stages, four sensors, no neighbours."""
    rng = np.random.default_rng(0)
    pattern = 2.0 * rng.standard_normal((2, 3, 4))
    pattern -= pattern.mean(2, keepdims=True)
    lags = np.r_[1.0, 0.3, np.zeros(10)]
    noise = NoiseModel(np.eye(4)[None], lags[None], onset_distance_s=1e3)
    times = np.arange(12) / 50
    observer = Observer(
        pattern,
        np.array([0.06, 0.14]),
        np.array([0.02, 0.03]),
        np.array([0.01, 0.02]),
        np.array([0.2, 0.3]),
        noise,
        times,
    )
    return observer, pattern, noise, times


def test_marginal_likelihood_is_the_brute_force_integral() -> None:
    observer, pattern, noise, times = toy()
    rng = np.random.default_rng(1)
    basis = np.linalg.eigh(np.eye(4) - 0.25)[1][:, 1:]
    covariance = np.kron(
        np.eye(3), np.array([[noise.autocovariance_MT[0][abs(i - j)] for j in range(12)] for i in range(12)])
    )
    inverse = np.linalg.inv(covariance + 1e-4 * np.eye(36))
    x = 1.5 * rng.standard_normal((1, 4, 12))
    x -= x.mean(1, keepdims=True)
    flat = (basis.T @ x[0]).ravel()
    draws, log_p = 100_000, np.empty(3)
    z, g1, g2 = rng.standard_normal((3, draws))
    for image in range(3):
        mean = np.zeros((draws, 36))
        for s, (gain, latency, width, sd) in enumerate(
            [(1 + 0.2 * g1, 0.06, 0.02, 0.01), (1 + 0.3 * g2, 0.14, 0.03, 0.02)]
        ):
            kernel = gain[:, None] * np.exp(-0.5 * ((times - latency - sd * z[:, None]) / width) ** 2)
            mean += np.einsum("r,nt->nrt", basis.T @ pattern[s, image], kernel).reshape(draws, 36)
        rest = flat - mean
        value = -0.5 * np.einsum("nf,fg,ng->n", rest, inverse, rest) + 0.5 * flat @ inverse @ flat
        log_p[image] = np.logaddexp.reduce(value) - np.log(draws)
    found = observer.identify(x, np.arange(3))[0]
    assert np.allclose(found - found[0], log_p - log_p[0], atol=0.05)


def test_stimuli_from_a_folder(real: Path, tmp_path: Path) -> None:
    photos = pd.read_csv(real / "photos/labels.csv")
    chosen = photos[photos["categories"].isin(["fruit|food", "food|fruit", "furniture"])].head(12)
    folder = tmp_path / "pictures"
    folder.mkdir()
    table = chosen.rename(columns={"uniqueID": "concept", "categories": "category"})
    for file in table["file"]:
        (folder / file).symlink_to(real / "photos" / file)
    table.to_csv(folder / "concepts.tsv", sep="\t", index=False)
    root = simulate(small(tmp_path, f"paths.stimuli={folder}", "simulate.people=1"), quiet, quiet)
    events = pd.read_csv(root / "sub-01/eeg/sub-01_task-rsvp_events.tsv", sep="\t")
    assert set(events["object"]) <= {*table["concept"], "-1"}
    assert len(set(events["stimname"])) == len(table)
