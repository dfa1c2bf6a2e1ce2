"""Pictures -> cortical sources -> sensors.

Three stages answer a picture (latencies as in Cichy et al. 2014, Carlson et al. 2013, Grootswagers et al. 2019):

    early   100 ms   retinotopic local contrast and colour, occipital pole
    middle  170 ms   oriented energy at three scales (shape, texture), lateral occipital cortex
    late    320 ms   category and concept, ventral temporal cortex
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synapse_diffusion.simulate.sensors import CENTRE, RADIUS, Sensors

LATENCY_S: Final = np.array([0.100, 0.170, 0.320])
WIDTH_S: Final = np.array([0.014, 0.020, 0.050])
LATENCY_SD_S: Final = np.array([0.004, 0.008, 0.025])
GAIN_SD: Final = np.array([0.25, 0.3, 0.4])
N_SOURCES: Final = {"middle": 24, "late": 24}
CELLS: Final = 6  # a side of the grid of local contrast
CONCEPT_SHARE: Final = 0.5  # variance of a concept's own late pattern relative to its category's
IMAGE_SHARE: Final = 0.15  # likewise of an image's own


@dataclass(frozen=True)
class Anatomy:
    """One person: how the sensors see the sources of each stage, and brain noise."""

    gain_early: NDArray[np.float64]
    gain_middle: NDArray[np.float64]
    gain_late: NDArray[np.float64]
    noise_covariance_CC: NDArray[np.float64]
    latency_S: NDArray[np.float64]


def image_features(picture_HW3: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Early (54) and middle (48) features of an sRGB picture."""
    rgb = np.asarray(ndimage.zoom(picture_HW3 / 255.0, (48 / len(picture_HW3), 48 / picture_HW3.shape[1], 1), order=1))
    luminance = rgb @ np.array([0.299, 0.587, 0.114])
    cells = luminance.reshape(CELLS, 48 // CELLS, CELLS, 48 // CELLS)
    contrast = cells.std(axis=(1, 3))
    opponent = np.stack([rgb[..., 0] - rgb[..., 1], rgb[..., 2] - rgb[..., :2].mean(-1)])
    colour = opponent.reshape(2, 3, 16, 3, 16).mean(axis=(2, 4))
    early = np.concatenate([np.sqrt(contrast).ravel(), colour.ravel()])
    energies = []
    for scale in (1.0, 2.0, 4.0):
        dy, dx = np.gradient(ndimage.gaussian_filter(luminance, scale))
        for angle in np.arange(4) * np.pi / 4:
            energy = (dx * np.cos(angle) + dy * np.sin(angle)) ** 2 * scale**2
            energies.append(np.sqrt(energy.reshape(2, 24, 2, 24).mean(axis=(1, 3))).ravel())
    return early, np.concatenate(energies)


def late_features(
    categories: list[str], concepts: list[str], images: list[str], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Late source amplitudes (N images, sources): category + concept + image, in that order of strength."""
    n = N_SOURCES["late"]
    of_category = {name: rng.standard_normal(n) for name in sorted(set(categories))}
    of_concept = {name: rng.standard_normal(n) for name in sorted(set(concepts))}
    own = rng.standard_normal((len(images), n))
    category = np.stack([of_category[name] for name in categories])
    concept = np.stack([of_concept[name] for name in concepts])
    return np.asarray(category + np.sqrt(CONCEPT_SHARE) * concept + np.sqrt(IMAGE_SHARE) * own)


def grow_anatomy(sensors: Sensors, rng: np.random.Generator) -> Anatomy:
    """A person's sources and their lead fields (per source unit, mean column norm 1)."""
    early, middle, late = _early_sources(rng), _sources(rng, "middle"), _sources(rng, "late")
    noise = _noise_sources(rng)
    counts = np.cumsum([len(part[0]) for part in (early, middle, late)])
    position = np.concatenate([part[0] for part in (early, middle, late, noise)])
    direction = np.concatenate([part[1] for part in (early, middle, late, noise)])
    gain_CS = sensors.lead_field(position, direction)
    parts = [part / np.linalg.norm(part, axis=0).mean() for part in np.split(gain_CS, counts, axis=1)]
    covariance = parts[3] @ parts[3].T
    return Anatomy(
        gain_early=parts[0],
        gain_middle=parts[1],
        gain_late=parts[2],
        noise_covariance_CC=covariance / np.diag(covariance).mean(),
        latency_S=LATENCY_S * (1 + 0.04 * rng.standard_normal()) + 0.003 * rng.standard_normal(3),
    )


def draw(n_trials: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Delays in s (N, S), by one factor a trial, and gains (N, S)."""
    shift_N = rng.standard_normal(n_trials)
    return shift_N[:, None] * LATENCY_SD_S, 1.0 + GAIN_SD * rng.standard_normal((n_trials, 3))


def course(times_T: NDArray[np.float64], latency_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """A Gaussian of each stage (S, T)."""
    return np.asarray(np.exp(-0.5 * ((times_T - latency_S[:, None]) / WIDTH_S[:, None]) ** 2))


SHARED: Final = 1.5  # root mean square of the shared response relative to what tells pictures apart
CORTEX: Final = 0.80  # of the head radius: inside the inner skull of the four-shell model


def shared_by_sensor(
    pattern_SNC: NDArray[np.float64], gains: Sequence[NDArray[np.float64]], rng: np.random.Generator
) -> NDArray[np.float64]:
    """A response (S, 1, C) shared by all pictures, of a sign of its own at each sensor."""
    del gains
    sign = np.sign(rng.standard_normal((3, 1, pattern_SNC.shape[2])))
    return np.asarray(pattern_SNC.std(axis=1, keepdims=True) * sign)


def shared_by_sources(
    pattern_SNC: NDArray[np.float64], gains: Sequence[NDArray[np.float64]], rng: np.random.Generator
) -> NDArray[np.float64]:
    """A response (S, 1, C) shared by all pictures: of the stages' own sources, so of their topographies."""
    shared = np.stack([gain_CS @ (0.5 + rng.standard_normal(gain_CS.shape[1])) for gain_CS in gains])[:, None]
    ratio = np.sqrt(pattern_SNC.var(axis=1).mean(axis=1) / (shared**2).mean(axis=(1, 2)))
    return np.asarray(SHARED * ratio[:, None, None] * shared)


def _on_cortex(
    azimuth: NDArray[np.float64], elevation: NDArray[np.float64], depth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points on a sphere `depth` x cortex; azimuth 0 is straight back, positive to the right; radians."""
    outward = np.stack(
        [np.cos(elevation) * np.sin(azimuth), -np.cos(elevation) * np.cos(azimuth), np.sin(elevation)],
        axis=-1,
    )
    return np.asarray(CENTRE) + outward * (RADIUS * CORTEX * depth)[:, None], outward


def _early_sources(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Retinotopy: left field right hemisphere, upper field below the calcarine, periphery forward."""
    grids = []
    for side in (CELLS, 3, 3):
        row, column = np.meshgrid(np.linspace(1, -1, side), np.linspace(-1, 1, side), indexing="ij")
        grids.append(np.stack([column.ravel(), row.ravel()], axis=-1))
    x, y = np.concatenate(grids).T
    jitter = 0.04 * rng.standard_normal((2, len(x)))
    azimuth = -0.30 * np.sign(x + 1e-9) * (0.35 + 0.65 * np.abs(x)) + jitter[0]
    elevation = -0.25 - 0.30 * y + jitter[1]
    depth = 0.96 - 0.22 * np.hypot(x, y) / np.sqrt(2)
    position, outward = _on_cortex(azimuth, elevation, depth)
    # on the banks of the calcarine the surface normal is vertical and flips with the field's half (C1)
    up = np.array([0.0, 0.0, 1.0]) * np.sign(y + 1e-9)[:, None]
    return position, _unit(0.6 * outward + up + 0.25 * rng.standard_normal(position.shape))


def _sources(rng: np.random.Generator, stage: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = N_SOURCES[stage]
    side = np.where(np.arange(n) % 2, 1.0, -1.0)
    lateral, low = {"middle": (0.85, -0.05), "late": (1.15, -0.35)}[stage]
    azimuth = side * (lateral + 0.16 * rng.standard_normal(n))
    elevation = low + 0.14 * rng.standard_normal(n)
    position, outward = _on_cortex(azimuth, elevation, np.clip(0.92 + 0.05 * rng.standard_normal(n), 0.7, 0.98))
    return position, _unit(outward + 0.7 * rng.standard_normal(position.shape))


def _noise_sources(rng: np.random.Generator, n: int = 300) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    azimuth = rng.uniform(-np.pi, np.pi, n)
    elevation = np.arcsin(rng.uniform(-0.45, 1.0, n))
    position, outward = _on_cortex(azimuth, elevation, rng.uniform(0.75, 0.98, n))
    return position, _unit(outward + 0.7 * rng.standard_normal(position.shape))


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector, axis=-1, keepdims=True))
