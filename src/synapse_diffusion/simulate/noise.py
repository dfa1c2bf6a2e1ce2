"""What is recorded beside the responses, and its second moments as the ideal observers need them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from synapse_diffusion.config import SimulateSettings
from synapse_diffusion.simulate.brain import Anatomy
from synapse_diffusion.simulate.sensors import Sensors

Floats = NDArray[np.float64]

BLINKS_HZ: Final = 0.2
BLINK_WIDTH_S: Final = 0.06
BLINK_SPREAD: Final = 0.3  # standard deviation of the log amplitude
BEAT_SPREAD: Final = 0.06  # standard deviation of the time between two beats, relative to its mean
BEAT_AT_S: Final = np.array([-0.16, -0.025, 0.0, 0.025, 0.25])  # P, Q, R, S, T waves relative to R
BEAT_WIDTH_S: Final = np.array([0.02, 0.008, 0.01, 0.009, 0.045])
BEAT_HEIGHT: Final = np.array([0.08, -0.1, 1.0, -0.2, 0.2])
EOG_V: Final = 150e-6  # a blink
ECG_V: Final = 1e-3  # an R wave
MUSCLE_V: Final = 8e-6  # white noise of both, root mean square
ROWS: Final = 16  # sensors whose spectrum is in memory at a time


@dataclass(frozen=True)
class Levels:
    """Amplitudes in the sensors' unit (V or T)."""

    brain: float
    """Root mean square over time and sensors."""
    corner_hz: float
    """The brain's noise falls with 1/f^slope above it."""
    alpha: float
    """Power of the peak (of the alpha rhythm) relative to the slope there."""
    sensor: float
    """White noise of a sensor: root mean square or, if `sensor_density`, per square root of a Hz."""
    sensor_density: bool
    mains: float
    drift: float
    """Per square root of a second."""
    offset: float
    blink: float
    """At the sensor that sees it best."""
    heart: float = 0.0
    """Likewise of the R wave; 0: the study has neither it nor EOG and ECG channels."""
    slope: float = 1.0
    peak_hz: float = 10.0

    def white(self, sfreq: float) -> float:
        """Root mean square of a sensor's white noise at `sfreq` Hz."""
        return self.sensor * (math.sqrt(sfreq / 2) if self.sensor_density else 1.0)


def make_noise(
    anatomy: Anatomy,
    sensors: Sensors,
    levels: Levels,
    n_samples: int,
    settings: SimulateSettings,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Noise (C, T) of a recording, and its EOG and ECG in V (2, T) where the heart has a level (else 0, T).

    Brain noise (spatially correlated, 1/f with an alpha peak), sensor noise, mains hum, drift, blinks, heart beats.
    """
    n_sensors, sfreq = len(sensors.names), settings.sfreq
    coloured = rng.standard_normal((n_sensors, fft.next_fast_len(n_samples, real=True)), dtype=np.float32)
    shape = np.sqrt(_spectrum(fft.rfftfreq(coloured.shape[1], 1 / sfreq), levels)).astype(np.float32)
    shape /= np.sqrt((shape[1:] ** 2).mean())
    for k in range(0, n_sensors, ROWS):
        coloured[k : k + ROWS] = fft.irfft(fft.rfft(coloured[k : k + ROWS]) * shape, coloured.shape[1])
    root = np.linalg.cholesky(anatomy.noise_covariance_CC + 1e-9 * np.eye(n_sensors)).astype(np.float32)
    signal_CT = np.asarray((np.float32(levels.brain) * root) @ coloured[:, :n_samples], dtype=np.float32)
    del coloured
    signal_CT += np.float32(levels.white(sfreq)) * rng.standard_normal(signal_CT.shape, dtype=np.float32)
    t = np.arange(n_samples) / sfreq
    hum = np.sin(2 * np.pi * settings.mains_hz * t) + 0.3 * np.sin(2 * np.pi * 3 * settings.mains_hz * t)
    mains_C = levels.mains * rng.lognormal(0, 0.4, n_sensors)
    steps = rng.standard_normal((n_sensors, n_samples // 50 + 2)) * levels.drift * np.sqrt(50 / sfreq)
    coarse = np.cumsum(steps, axis=1) + levels.offset * rng.standard_normal((n_sensors, 1))
    knots = np.arange(coarse.shape[1]) * 50
    for c in range(n_sensors):
        signal_CT[c] += (mains_C[c] * hum).astype(np.float32)
        signal_CT[c] += np.interp(np.arange(n_samples), knots, coarse[c]).astype(np.float32)
    lid_T = np.zeros(n_samples)
    blink = np.exp(-0.5 * ((np.arange(round(0.5 * sfreq)) / sfreq - 0.2) / BLINK_WIDTH_S) ** 2)
    for start in rng.integers(0, n_samples - len(blink), round(BLINKS_HZ * n_samples / sfreq)):
        strength = rng.lognormal(0, BLINK_SPREAD)
        shown = slice(start, start + len(blink))
        signal_CT[:, shown] += np.outer(sensors.blink_C * (levels.blink * strength), blink).astype(np.float32)
        lid_T[shown] += strength * blink
    if not levels.heart:
        return signal_CT, np.empty((0, n_samples), np.float32)
    beat_T = _beats(t, sensors.heart_period_s, rng)
    for c, height in enumerate(levels.heart * sensors.heart_C):
        signal_CT[c] += (height * beat_T).astype(np.float32)
    body_PT = np.stack([EOG_V * lid_T, ECG_V * beat_T]) + MUSCLE_V * (hum + rng.standard_normal((2, n_samples)))
    return signal_CT, body_PT.astype(np.float32)


def _beats(t: Floats, period_s: float, rng: np.random.Generator) -> Floats:
    """An electrocardiogram whose R waves are 1, at times `t` in s."""
    n_beats = math.ceil(t[-1] / period_s * 1.2) + 20  # more than can be needed, however fast they come
    at = np.cumsum(period_s * (1 + BEAT_SPREAD * rng.standard_normal(n_beats))) - period_s * rng.uniform(1, 2)
    out = np.zeros(len(t))
    for beat in at[at < t[-1] + 1]:
        near = slice(*np.searchsorted(t, [beat - 0.4, beat + 0.6]))
        waves = np.exp(-0.5 * ((t[near] - beat - BEAT_AT_S[:, None]) / BEAT_WIDTH_S[:, None]) ** 2)
        out[near] += BEAT_HEIGHT @ waves
    return out


def frequencies(sfreq: float) -> Floats:
    """Frequencies (F,) in Hz at which the noise's power is given."""
    return np.asarray(np.arange(0.05, sfreq / 2, 0.05))


def noise_moments(anatomy: Anatomy, sensors: Sensors, levels: Levels, sfreq: float) -> tuple[Floats, Floats]:
    """Spatial covariances (M, C, C) of brain noise, sensor noise with drift, blinks and (if any) heart beats,
    and their one-sided power spectra (M, F) in V^2/Hz or T^2/Hz.
    """  # fmt: skip
    f = frequencies(sfreq)
    brain = _spectrum(f, levels)
    brain *= levels.brain**2 / (brain.sum() * (f[1] - f[0]))
    sensor = levels.white(sfreq) ** 2 / (sfreq / 2) + levels.drift**2 / (2 * np.pi**2 * f**2)
    kernel = BLINK_WIDTH_S * np.sqrt(2 * np.pi) * np.exp(-0.5 * (2 * np.pi * f * BLINK_WIDTH_S) ** 2)
    blink = 2 * BLINKS_HZ * levels.blink**2 * np.exp(2 * BLINK_SPREAD**2) * kernel**2
    spatial = [anatomy.noise_covariance_CC, np.eye(len(sensors.names)), np.outer(sensors.blink_C, sensors.blink_C)]
    powers = [brain, sensor, blink]
    if levels.heart:
        spatial.append(np.outer(sensors.heart_C, sensors.heart_C))
        powers.append(levels.heart**2 * _beat_power(f, sensors.heart_period_s))
    return np.stack(spatial), np.stack(powers)


def _beat_power(f: Floats, period_s: float) -> Floats:
    """One-sided spectrum of `_beats`: a renewal process of normal intervals (Cox & Lewis 1966, ch. 4) through a beat.

    Its lines are narrower than the grid's step: the mean over each step is taken.
    """
    step = f[1] - f[0]
    fine = (f[:, None] + step * ((np.arange(10) + 0.5) / 10 - 0.5)).ravel()
    turn = 2 * np.pi * fine
    spread = BEAT_SPREAD * period_s
    phi = np.exp(1j * turn * period_s - 0.5 * (turn * spread) ** 2)
    points = (1 - np.abs(phi) ** 2) / np.abs(1 - phi) ** 2 / period_s
    waves = (BEAT_HEIGHT * BEAT_WIDTH_S * np.sqrt(2 * np.pi))[:, None]
    beat = (waves * np.exp(-0.5 * (turn * BEAT_WIDTH_S[:, None]) ** 2 - 1j * turn * BEAT_AT_S[:, None])).sum(0)
    return np.asarray((2 * points * np.abs(beat) ** 2).reshape(len(f), 10).mean(1))


def _spectrum(frequency: Floats, levels: Levels) -> Floats:
    """Power of brain noise at `frequency` (Hz), in arbitrary units: a slope above a corner, and a peak."""
    pink = 1.0 / (1.0 + frequency / levels.corner_hz) ** levels.slope
    at_peak = 1.0 / (1.0 + levels.peak_hz / levels.corner_hz) ** levels.slope
    return np.asarray(pink + levels.alpha * at_peak * np.exp(-0.5 * ((frequency - levels.peak_hz) / 1.0) ** 2))
