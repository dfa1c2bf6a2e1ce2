"""The part of denoising that a Gaussian model of pictures does in closed form; a network answers what is beyond it.

Where x_0 is normal, the best prediction is linear in x_t (Wiener's filter), and at high noise that is nearly all there
is (Wang & Vastola 2024, "The unreasonable effectiveness of Gaussian score approximation for diffusion models"). The
network's answer is added in units of what is left over, frequency by frequency: EDM's preconditioning (Karras et al.
2022, section 5) with a picture's spectrum for its one data deviation. An answer that is still poor then looks like
pictures do, not like noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from synapse_diffusion.diffusion.processes import Process

FLOOR = 1e-4
"""Least power of a frequency, of the mean."""


class GaussianPictures(nn.Module):
    """Pictures (C, H, W): a mean, what known numbers tell, and beyond it independent cosines (DCT-II) of independent
    colours."""

    mean_CHW: Tensor
    colour_CC: Tensor
    told_ECHW: Tensor
    power_CHW: Tensor
    rows_HH: Tensor
    columns_WW: Tensor

    def __init__(self, shape: tuple[int, int, int], n_known: int) -> None:
        """`n_known`: numbers E that are known of a picture; 0: none."""
        super().__init__()
        channels, height, breadth = shape
        self.register_buffer("mean_CHW", torch.zeros(shape))
        self.register_buffer("colour_CC", torch.eye(channels))
        self.register_buffer("told_ECHW", torch.zeros(n_known, *shape))
        self.register_buffer("power_CHW", torch.ones(shape))
        self.register_buffer("rows_HH", cosines(height), persistent=False)
        self.register_buffer("columns_WW", cosines(breadth), persistent=False)

    @torch.no_grad()
    def fit(self, x0_NCHW: Tensor, known_NE: Tensor) -> None:
        """From pictures and what is known of them: principal components, uncorrelated and of variance 1."""
        self.mean_CHW.copy_(x0_NCHW.mean(0))
        centred = x0_NCHW - self.mean_CHW
        told_ECHW = torch.einsum("ne,nchw->echw", known_NE, centred) / len(known_NE)
        left = centred - torch.einsum("ne,echw->nchw", known_NE, told_ECHW)
        left_CM = left.transpose(0, 1).flatten(1).double()
        self.colour_CC.copy_(torch.linalg.eigh(left_CM @ left_CM.T / left_CM.shape[1])[1].T)
        self.told_ECHW.copy_(self.into(told_ECHW))
        floor = FLOOR * float(centred.square().mean())
        self.power_CHW.copy_(self.into(left).square().mean(0).clamp_min(floor))

    def expect(self, known_BE: Tensor, doubt_BE: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and power (B, C, H, W) of the cosines, given what one expects of the numbers, and its variance."""
        mean = torch.einsum("be,echw->bchw", known_BE, self.told_ECHW)
        return mean, self.power_CHW + torch.einsum("be,echw->bchw", doubt_BE, self.told_ECHW.square())

    def into(self, x_BCHW: Tensor) -> Tensor:
        """Colours' cosines (B, C, H, W): an orthonormal map."""
        coloured = torch.einsum("ck,bkhw->bchw", self.colour_CC, x_BCHW)
        return self.rows_HH @ coloured @ self.columns_WW.T

    def back(self, z_BCHW: Tensor) -> Tensor:
        """Pictures (B, C, H, W) of these."""
        return torch.einsum("ck,bchw->bkhw", self.colour_CC, self.rows_HH.T @ z_BCHW @ self.columns_WW)

    def predict(
        self, process: Process, x_BCHW: Tensor, t_B: Tensor, expected: tuple[Tensor, Tensor], answer_BCHW: Tensor
    ) -> Tensor:
        """What the process predicts of x_t at times (B,) or (1,): the Gaussian's part, and the network's in its units.

        With z_0 the cosines of x_0 - mean, m and p what `expect` says of them, one expects of z_0
        m + alpha p / (alpha^2 p + sigma^2) (z_t - alpha m), of eps sigma / (...) (z_t - alpha m); the prediction is
        left with variance p / (...), for the velocity of a flow and for v alike.
        """
        alpha, sigma = process.coefficients(t_B.reshape(-1, 1, 1, 1))
        mean, power = expected
        total = alpha.square() * power + sigma.square()
        beyond = self.into(x_BCHW - alpha * self.mean_CHW) - alpha * mean
        of_z = process.target(mean + alpha * power / total * beyond, sigma / total * beyond, alpha, sigma)
        of_mean = process.target(self.mean_CHW, torch.zeros_like(self.mean_CHW), alpha, sigma)
        return self.back(of_z + (power / total).sqrt() * self.into(answer_BCHW)) + of_mean

    def scaled(self, power: Tensor, error_BCHW: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Errors of predictions by frequency, over the root of the deviation that the Gaussian leaves them.

        Half way between errors as they are, of which colours and large shapes are nearly all, and those of the
        network's answer, in which all frequencies count alike: it learns faster than from either.
        """
        return self.into(error_BCHW) / (power / (alpha.square() * power + sigma.square())).sqrt().sqrt()


def cosines(n: int) -> Tensor:
    """The orthonormal DCT-II (n, n), frequencies in rows."""
    angle = math.pi / n * torch.outer(torch.arange(n, dtype=torch.float64), torch.arange(n, dtype=torch.float64) + 0.5)
    matrix = angle.cos() * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix.float()
