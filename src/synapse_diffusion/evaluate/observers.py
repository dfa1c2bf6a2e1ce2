"""Ideal observers of a simulated study: what there was to find, from the true responses and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.bids.truth import PersonTruth, read_truth
from synapse_diffusion.config import Recipe
from synapse_diffusion.metrics import NoiseModel, Observer
from synapse_diffusion.splits import TRAIN
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.training.examples import Asked, Pick

OBSERVER_RATE_HZ: Final = 100.0
Answer = Callable[[Observer, PersonTruth, NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Observers:
    """Of everyone in a simulated study's epochs; each is made when first asked for, and kept."""

    recipe: Recipe
    epochs: Epochs
    _known: dict[str, tuple[PersonTruth, Observer, int] | None] = field(default_factory=dict)

    def classes(self, asked: Asked, k_repeats: int, splits: pd.DataFrame) -> NDArray[np.float64] | None:
        """The category observer's log likelihoods (N, K) of single modality decisions; None where no truth is known.

        It knows the true responses to the training images.
        """
        trained = splits[splits["split"] == TRAIN].drop_duplicates("image_id")
        class_of = dict(zip(trained["image_id"], trained["class"], strict=True))

        def answer(observer: Observer, truth: PersonTruth, x_NCT: NDArray[np.float64]) -> NDArray[np.float64]:
            known = [k for k, image in enumerate(truth.images) if image in class_of]
            known_class = np.array([class_of[truth.images[k]] for k in known], dtype=np.int64)
            return observer.categorise(x_NCT, np.array(known), known_class, k_repeats)

        return self._answers(asked, answer)

    def images(self, asked: Asked, images: Sequence[str]) -> NDArray[np.float64] | None:
        """The identification observer's log likelihoods (N, K) of single trials for these images; None without truth.

        It knows the true responses to them.
        """

        def answer(observer: Observer, truth: PersonTruth, x_NCT: NDArray[np.float64]) -> NDArray[np.float64]:
            index = {image: k for k, image in enumerate(truth.images)}
            return observer.identify(x_NCT, np.array([index[image] for image in images]))

        return self._answers(asked, answer)

    def _answers(self, asked: Asked, answer: Answer) -> NDArray[np.float64] | None:
        [pick] = asked.picks.values()
        groups = _groups(pick)
        person_N = self.epochs.trials["person"].to_numpy(dtype=str)[[int(group[0]) for group in groups]]
        out: NDArray[np.float64] | None = None
        for person in np.unique(person_N):
            known = self._of(person)
            if known is None:
                return None
            truth, observer, width = known
            mine = np.flatnonzero(person_N == person)
            scores = answer(observer, truth, observer_epochs(self.epochs, [groups[k] for k in mine], width))
            if out is None:
                out = np.empty((len(groups), scores.shape[1]))
            out[mine] = scores
        return out

    def _of(self, person: str) -> tuple[PersonTruth, Observer, int] | None:
        if person not in self._known:
            truth = read_truth(Path(self.recipe.paths.bids), person)
            known = truth is not None and set(self.epochs.channels) <= set(truth.sensors)  # not of the eyes alone
            self._known[person] = (
                (truth, *person_observer(truth, self.epochs, self.recipe)) if truth and known else None
            )
        return self._known[person]


def _groups(pick: Pick) -> list[NDArray[np.int64]]:
    return np.split(pick.rows, np.cumsum(pick.size_N)[:-1])


def person_observer(truth: PersonTruth, epochs: Epochs, recipe: Recipe) -> tuple[Observer, int]:
    """The observer of one person for this view, and the samples of its time bins (at most 100 Hz)."""
    width = max(1, round(epochs.sfreq / OBSERVER_RATE_HZ))
    n_bins = epochs.n_times // width
    times = epochs.times[: n_bins * width].reshape(n_bins, width).mean(1)
    columns = [truth.sensors.index(name) for name in epochs.channels]
    pattern = truth.pattern_SNC[:, :, columns]
    pattern = pattern - pattern.mean(2, keepdims=True)
    rate = epochs.sfreq / width
    noise = NoiseModel(
        spatial_MCC=truth.noise_MCC[:, columns][:, :, columns],
        autocovariance_MT=_autocovariances(truth, recipe, rate, n_bins),
        onset_distance_s=truth.onset_distance_s,
    )
    observer = Observer(pattern, truth.latency_S, truth.width_S, truth.latency_sd_S, truth.gain_sd_S, noise, times)
    return observer, width


def observer_epochs(epochs: Epochs, groups: Sequence[NDArray[np.int64]], width: int) -> NDArray[np.float64]:
    """Mean epochs (N, C, T // width) in V or T of groups of trials, average reference, time-binned."""
    means = []
    for group in groups:
        x_CT = epochs.read(group).mean(0).double().cpu().numpy()
        n_bins = x_CT.shape[1] // width
        means.append(x_CT[:, : n_bins * width].reshape(len(x_CT), n_bins, width).mean(-1))
    x_NCT = np.stack(means)
    return np.asarray(x_NCT - x_NCT.mean(1, keepdims=True))


def _autocovariances(truth: PersonTruth, recipe: Recipe, rate: float, n_lags: int) -> NDArray[np.float64]:
    """Autocovariances (M, lags) in V^2 or T^2 of the noise's components, after conversion and binning to `rate` Hz."""
    f, convert = truth.frequency_F, recipe.convert
    gain = np.clip((0.5 * rate - f) / (0.05 * rate), 0, 1)
    if convert.lowpass_hz:  # MNE's transition: a quarter of the edge, 2 Hz or more
        gain *= np.clip(1 - (f - convert.lowpass_hz) / max(0.25 * convert.lowpass_hz, 2.0), 0, 1)
    if convert.highpass_hz:
        gain *= np.clip(f / convert.highpass_hz, 0, 1)
    cosine = np.cos(2 * np.pi * np.outer(np.arange(n_lags) / rate, f))
    return np.asarray((truth.noise_power_MF * gain**2) @ cosine.T * (f[1] - f[0]))
