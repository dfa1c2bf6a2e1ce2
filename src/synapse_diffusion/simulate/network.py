"""Another brain, for what was chosen on `brain`'s responses and should hold elsewhere: no method is tuned on it.

What drives the sources comes from a fixed random network over a small picture's colours and edges, and from a random
tree over concepts; responses are damped oscillations, gains multiply, latencies vary log-normally and by stage; the
noise falls faster than 1/f, from 12 Hz on, and has its peak at 20 Hz. Anatomy and amplitudes are `brain`'s. The ideal
observers assume Gaussian courses and gains and do not apply: no truth is written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synapse_diffusion.simulate.noise import Levels

Floats = NDArray[np.float64]

LATENCY_S: Final = np.array([0.065, 0.130, 0.240])  # a response's begin
RISE_S: Final = np.array([0.018, 0.030, 0.055])  # from there to the envelope's peak
RATE_HZ: Final = np.array([14.0, 8.0, 3.5])
STRETCH_SD: Final = 0.06  # of all latencies of a trial, logarithm
JITTER_SD_S: Final = np.array([0.002, 0.005, 0.012])  # of each stage apart
GAIN_SD: Final = 0.3  # logarithm, of a trial and again of each stage
SIDE: Final = 16  # pixels of the small picture
HIDDEN: Final = 200
FEATURES: Final = (54, 48)  # as many as `brain`'s early and middle ones
SOURCES: Final = 24
SHRINK: Final = 0.7  # variance of a level of the tree relative to the level above
IMAGE_SHARE: Final = 0.2  # variance of an image's own late pattern


class RandomNetwork:
    """Two layers of fixed random weights over a picture's colours and edges."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 9])
        n_inputs = 5 * SIDE**2
        self._first = rng.standard_normal((n_inputs, HIDDEN)) / np.sqrt(n_inputs)
        self._early = rng.standard_normal((HIDDEN, FEATURES[0])) / np.sqrt(HIDDEN)
        self._second = 2 * rng.standard_normal((HIDDEN, FEATURES[1])) / np.sqrt(HIDDEN)
        self._threshold = rng.standard_normal(FEATURES[1])

    def __call__(self, picture_HW3: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Early (54) and middle (48) features of an sRGB picture."""
        height, width = picture_HW3.shape[:2]
        blurred = ndimage.gaussian_filter(picture_HW3 / 255.0, (height / SIDE / 2, width / SIDE / 2, 0))
        small = np.asarray(ndimage.zoom(blurred, (SIDE / height, SIDE / width, 1), order=1))
        grey = small.mean(2)
        edges = np.stack([4 * np.abs(ndimage.sobel(grey, axis)) for axis in (0, 1)], axis=2)
        inputs = np.concatenate([small - 0.5, edges], axis=2).ravel()
        hidden = np.maximum(6 * inputs @ self._first, 0)
        early = np.tanh(hidden @ self._early)
        return early, np.maximum(hidden @ self._second - self._threshold, 0)


def late_features(categories: list[str], concepts: list[str], images: list[str], rng: np.random.Generator) -> Floats:
    """Late source amplitudes (N images, sources): the sum of all nodes from the root of a random tree to a concept.

    Its first branches are the categories; below, each is split in halves at random.
    """
    of_concept = dict(zip(concepts, categories, strict=True))
    vector = {}
    for category in sorted(set(categories)):
        members = sorted(name for name in of_concept if of_concept[name] == category)
        start = rng.standard_normal(SOURCES)
        groups = [(list(rng.permutation(members)), start, SHRINK)]
        while groups:
            names, above, variance = groups.pop()
            if len(names) == 1:
                vector[names[0]] = above
                continue
            for half in (names[: len(names) // 2], names[len(names) // 2 :]):
                own = above + np.sqrt(variance) * rng.standard_normal(SOURCES)
                groups.append((half, own, variance * SHRINK))
    own = np.sqrt(IMAGE_SHARE) * rng.standard_normal((len(images), SOURCES))
    return np.asarray(np.tanh(0.7 * (np.stack([vector[name] for name in concepts]) + own)))


def draw(n_trials: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Delays (N, S) in s and gains (N, S) of trials."""
    stretch_N1 = np.exp(STRETCH_SD * rng.standard_normal((n_trials, 1)))
    delay_NS = LATENCY_S * (stretch_N1 - 1) + JITTER_SD_S * rng.standard_normal((n_trials, 3))
    gain_NS = np.exp(GAIN_SD * (rng.standard_normal((n_trials, 1)) + rng.standard_normal((n_trials, 3))))
    return delay_NS, gain_NS


def course(times_T: Floats, latency_S: Floats) -> Floats:
    """A damped oscillation of each stage (S, T), its envelope's peak 1."""
    since_ST = np.maximum(times_T - latency_S[:, None], 0)
    rise_ST = since_ST / RISE_S[:, None]
    return np.asarray(
        rise_ST * np.exp(1 - rise_ST) * np.cos(2 * np.pi * RATE_HZ[:, None] * (since_ST - RISE_S[:, None]))
    )


def coloured(levels: Levels) -> Levels:
    """The same amplitudes with another spectrum."""
    return replace(levels, corner_hz=12.0, slope=1.7, peak_hz=20.0)
