"""Ideal observers of a simulated study: what could be decoded by whoever knew the truth.

A trial is `x = sum_s g_s a_s k_s(t - shift) + noise`: patterns `a_s` (C,) of the stages s, gains
`g_s ~ N(1, sd_s^2)`, one latency factor `z ~ N(0, 1)` a trial that shifts stage s by `sd_s z`. Noise is Gaussian:
components of spatial covariance x temporal spectrum (brain, sensors and drift, blinks, heart), and the overlapping
responses of the neighbouring pictures, known by mean and covariance. Gains are integrated in closed form,
latency by Gauss-Hermite quadrature. "Ideal" holds as far as noise is Gaussian: blinks and heart beats are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from synapse_diffusion.covariance import ledoit_wolf

Array = NDArray[np.float64]
NODES: Final = 7
FLOOR: Final = 1e-4  # of the mean variance: what the filter leaves beyond its pass-band
DIRECTIONS: Final = 100  # of the sensors' space: 272 gradiometers see a brain of fewer degrees of freedom
NEIGHBOURS: Final = 7  # responses last 0.7 s: seven pictures before and after at 10 Hz


@dataclass(frozen=True)
class NoiseModel:
    """Second moments of what is no response: components of spatial x temporal covariance, V^2 or T^2."""

    spatial_MCC: Array
    autocovariance_MT: Array
    """At lags of one sample of the epochs."""
    onset_distance_s: float


def _basis(pattern_SNC: Array, noise: NoiseModel) -> Array:
    """Orthonormal directions (C, R) of what an average reference leaves, those of least power left out."""
    n_sensors = pattern_SNC.shape[2]
    power = np.einsum("mcd,m->cd", noise.spatial_MCC, noise.autocovariance_MT[:, 0])
    power += np.einsum("snc,snd->cd", pattern_SNC, pattern_SNC) / pattern_SNC.shape[1]
    centred = np.eye(n_sensors) - 1.0 / n_sensors
    vectors = np.linalg.eigh(centred @ power @ centred)[1]
    return np.asarray(vectors[:, -min(n_sensors - 1, DIRECTIONS) :])


class Observer:
    """Likelihoods of epochs (N, C, T) under one person's truth.

    `pattern_SNC` are the true patterns of all images, after the same re-referencing as the epochs, `mean`
    and covariance over them describe the neighbours. Sensors are rotated to the subspace that the
    reference leaves; of many, to its strongest directions: in the others there is hardly more than the sensors'
    own white noise, which says nothing about the rest.
    """

    def __init__(
        self,
        pattern_SNC: Array,
        latency_S: Array,
        width_S: Array,
        latency_sd_S: Array,
        gain_sd_S: Array,
        noise: NoiseModel,
        times_T: Array,
    ) -> None:
        self._latency, self._width, self._sd = latency_S, width_S, latency_sd_S
        self._gain_sd, self._times = gain_sd_S, times_T
        self._basis_CR = _basis(pattern_SNC, noise)
        self.pattern_SNR = pattern_SNC @ self._basis_CR
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        self._log_weight = np.log(weights / weights.sum())
        cholesky = linalg.cho_factor(self._noise(noise))
        self._expected_F = self._neighbour_mean(noise.onset_distance_s).ravel()
        n_ranks = self._basis_CR.shape[1]
        kernels = [self._kernel(latency_S + latency_sd_S * z) for z in nodes]
        smeared = np.tensordot(weights / weights.sum(), np.stack(kernels), axes=1)
        self._whitened, self._precision = [], []
        for kernel_ST in [*kernels, smeared]:
            design = np.einsum("st,rq->rtsq", kernel_ST, np.eye(n_ranks)).reshape(
                n_ranks * len(times_T), len(latency_S) * n_ranks
            )
            solved = linalg.cho_solve(cholesky, design)
            self._whitened.append(solved)
            self._precision.append(design.T @ solved)

    def _kernel(self, latency_S: Array) -> Array:
        return np.asarray(np.exp(-0.5 * ((self._times - latency_S[:, None]) / self._width[:, None]) ** 2))

    def _smeared(self, lag: float) -> Array:
        """Mean kernel (S, T) of a picture shown `lag` s later, its latency unknown."""
        width = np.sqrt(self._width**2 + self._sd**2)[:, None]
        height = self._width[:, None] / width
        return np.asarray(height * np.exp(-0.5 * ((self._times - lag - self._latency[:, None]) / width) ** 2))

    def _neighbour_mean(self, distance: float) -> Array:
        lags = [m * distance for m in range(-NEIGHBOURS, NEIGHBOURS + 1) if m]
        mean_SR = self.pattern_SNR.mean(1)
        return np.asarray(np.einsum("sr,st->rt", mean_SR, np.sum([self._smeared(lag) for lag in lags], axis=0)))

    def _noise(self, noise: NoiseModel) -> Array:
        """Covariance over (sensor, time) of everything but the response in question."""
        n_times = len(self._times)
        n_times, lags = len(self._times), range(-NEIGHBOURS, NEIGHBOURS + 1)
        kernels_LST = np.stack([self._smeared(m * noise.onset_distance_s) for m in lags if m])
        outer_SZTU = np.einsum("lst,lzu->sztu", kernels_LST, kernels_LST, optimize=True)
        centred = self.pattern_SNR - self.pattern_SNR.mean(1, keepdims=True)
        n_images = centred.shape[1]
        between_SZRQ = np.einsum("snr,znq->szrq", centred, centred, optimize=True) / n_images
        second_SRQ = np.einsum("snr,snq->srq", self.pattern_SNR, self.pattern_SNR, optimize=True) / n_images
        n_stages, _, n_ranks = self.pattern_SNR.shape
        spatial = [  # of each term the covariance over sensors, and below over time
            self._basis_CR.T @ noise.spatial_MCC @ self._basis_CR,
            between_SZRQ.reshape(-1, n_ranks, n_ranks),
            np.square(self._gain_sd)[:, None, None] * second_SRQ,  # gains vary about one, independently over stages
        ]
        temporal = [
            np.stack([linalg.toeplitz(lags_T[:n_times]) for lags_T in noise.autocovariance_MT]),
            outer_SZTU.reshape(-1, n_times, n_times),
            outer_SZTU[np.arange(n_stages), np.arange(n_stages)],
        ]
        sum_XY = np.concatenate(spatial).reshape(-1, n_ranks**2).T @ np.concatenate(temporal).reshape(-1, n_times**2)
        total = (
            sum_XY.reshape(n_ranks, n_ranks, n_times, n_times).transpose(0, 2, 1, 3).reshape((n_ranks * n_times,) * 2)
        )
        noise_variance = np.einsum("mrr,m->", spatial[0], noise.autocovariance_MT[:, 0]) / n_ranks
        total[np.diag_indices(len(total))] += FLOOR * noise_variance
        return np.asarray(total)

    def _project(self, x_NCT: Array) -> tuple[Array, Array]:
        """Sufficient statistics: `u` (nodes + smeared, N, S R) of each epoch."""
        flat = np.einsum("nct,cr->nrt", x_NCT, self._basis_CR).reshape(len(x_NCT), -1) - self._expected_F
        return np.stack([flat @ solved for solved in self._whitened]), np.stack(self._precision)

    def identify(self, x_NCT: Array, candidates: NDArray[np.int64]) -> Array:
        """Log likelihood (N, candidates) of each epoch under each candidate image's true response.

        Repeats of one image are independent given the image: add their rows.
        """
        u, precision = self._project(x_NCT)
        n_stages = len(self.pattern_SNR)
        gain_precision = np.diag(1.0 / self._gain_sd**2)
        log_gain = 2 * np.log(self._gain_sd).sum()
        out = np.empty((len(x_NCT), len(candidates)))
        for j, image in enumerate(candidates):
            block = linalg.block_diag(*(self.pattern_SNR[s, image][:, None] for s in range(n_stages)))
            per_node = []
            for node in range(NODES):
                b_NS = u[node] @ block
                q_SS = block.T @ precision[node] @ block
                rest_NS = b_NS - q_SS.sum(1)
                inner = q_SS + gain_precision
                log_det = np.linalg.slogdet(inner)[1] + log_gain
                quadratic = 0.5 * np.einsum("ns,ns->n", rest_NS, np.linalg.solve(inner, rest_NS.T).T)
                per_node.append(b_NS.sum(1) - 0.5 * q_SS.sum() + quadratic - 0.5 * log_det + self._log_weight[node])
            out[:, j] = np.logaddexp.reduce(per_node, axis=0)
        return out

    def categorise(
        self, x_NCT: Array, known: NDArray[np.int64], class_of_known: NDArray[np.int64], k_repeats: int
    ) -> Array:
        """Log likelihood (N, K) of epochs (each a mean of `k_repeats`) under each class.

        Knows the true responses of the images `known` only; a new image of a class is drawn from the normal
        distribution with that class's mean and the pooled Ledoit-Wolf covariance within classes.
        """
        u, precision = self._project(x_NCT)
        n_stages, _, n_ranks = self.pattern_SNR.shape
        pattern_NF = self.pattern_SNR[:, known].transpose(1, 0, 2).reshape(len(known), -1)
        n_classes = int(class_of_known.max()) + 1
        mean_KF = np.stack([pattern_NF[class_of_known == k].mean(0) for k in range(n_classes)])
        scale = pattern_NF.std()
        within = ledoit_wolf((pattern_NF - mean_KF[class_of_known]) / scale) * scale**2
        gain_variance = np.repeat(self._gain_sd**2, n_ranks) / k_repeats
        same_stage = np.kron(np.eye(n_stages), np.ones((n_ranks, n_ranks)))
        nodes = range(NODES) if k_repeats == 1 else [NODES]  # a mean over repeats has met all latencies
        out = np.empty((len(x_NCT), n_classes))
        for k, mean_F in enumerate(mean_KF):
            spread = within + same_stage * gain_variance[:, None] * (np.outer(mean_F, mean_F) + within)
            per_node = []
            for node in nodes:
                m_FF, v_NF = precision[node] * k_repeats, u[node] * k_repeats
                rest_NF = v_NF - m_FF @ mean_F
                inner = np.eye(len(spread)) + spread @ m_FF
                gain_FF = np.linalg.solve(inner, spread)
                log_det = np.linalg.slogdet(inner)[1]
                quadratic = 0.5 * np.einsum("nf,nf->n", rest_NF @ gain_FF, rest_NF)
                value = v_NF @ mean_F - 0.5 * mean_F @ m_FF @ mean_F + quadratic - 0.5 * log_det
                per_node.append(value + (self._log_weight[node] if k_repeats == 1 else 0.0))
            out[:, k] = np.logaddexp.reduce(per_node, axis=0)
        return out
