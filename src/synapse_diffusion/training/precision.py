"""How far each modality is to be trusted, decided on validation: weights of a fusion, temperatures of a sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from synapse_diffusion.losses import (
    TEMPERATURES,
    answer_weights,
    balanced_cross_entropy,
    balanced_yes_no,
    class_weights,
)
from synapse_diffusion.models.fusion import Network, strengths
from synapse_diffusion.training.data import ScaledEpochs
from synapse_diffusion.training.examples import Asked, chunks, read
from synapse_diffusion.training.learner import Learner

PRIOR_SD: Final = 0.5  # of the exponents of a trial's strengths; validation has few images
ITERATIONS: Final = 100


def calibrate(learner: Learner, validation: Asked, data: Mapping[str, ScaledEpochs]) -> None:
    """Set the network's weights (`exponent_M3`) to those of least cross-entropy on validation, with a normal prior."""
    network, objective = learner.network, learner.objective
    if not isinstance(network, Network) or len(network.modalities) < 2:
        return
    out, strength, target_N = _evidence(network, validation, data)
    present = {name: torch.ones(len(target_N), device=target_N.device) for name in network.modalities}
    free = torch.zeros_like(network.exponent_M3, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        network.exponent_M3 = free
        fused = network.fuse(out, strength, present)
        total = objective.likelihood_loss(fused, target_N)
        total = total + 0.5 * (free[:, 1:] / PRIOR_SD).square().sum() / len(target_N)
        torch.autograd.backward(total)
        return total

    step: Callable[..., object] = optimizer.step
    step(loss)
    network.exponent_M3 = free.detach().clone()


@torch.no_grad()
def _evidence(
    network: Network, asked: Asked, data: Mapping[str, ScaledEpochs]
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Each modality's outputs (N, D) and strengths (N, 2), and targets (N,)."""
    out: dict[str, list[Tensor]] = {name: [] for name in network.modalities}
    strength: dict[str, list[Tensor]] = {name: [] for name in network.modalities}
    targets = []
    for at in chunks(len(asked)):
        batch = read(asked.part(at), data)
        for decoder_name, (decoder, x_BCT, person_B) in zip(
            network.modalities, network.views(batch.signals, batch.people, batch.present), strict=True
        ):
            answer = decoder(x_BCT, person_B)
            out[decoder_name].append(answer)
            strength[decoder_name].append(strengths(answer, x_BCT))
        targets.append(batch.target_B)
    joined = {name: torch.cat(values) for name, values in out.items()}
    return joined, {name: torch.cat(values) for name, values in strength.items()}, torch.cat(targets)


def best_temperature(score_NK: Tensor, truth_N: Tensor, *, balanced: bool) -> float:
    """Of a softmax of scores (N, K), by cross-entropy (Guo et al. 2017), within a factor of 1.1.

    `balanced`: classes count alike, as in training and in the fusion's own weights.
    """
    score_NK = score_NK.double()
    weight_K = class_weights(truth_N, score_NK.shape[1]).double() if balanced else score_NK.new_ones(score_NK.shape[1])
    spread = (score_NK - score_NK.mean(1, keepdim=True)).std()
    return _least(spread, lambda t: balanced_cross_entropy(score_NK / t, truth_N, weight_K, 0.0))


def best_odds_temperature(score_NQ: Tensor, answer_NQ: Tensor) -> float:
    """Likewise of log odds (N, Q) of yes; yes and no to a question count alike."""
    weight_2Q = answer_weights(answer_NQ)
    return _least(score_NQ.std(), lambda t: balanced_yes_no(score_NQ / t, answer_NQ, weight_2Q))


def _least(spread: Tensor, loss: Callable[[float], Tensor]) -> float:
    """The temperature of least loss, in units of the scores' spread."""
    unit = float(spread.clamp_min(1e-12))
    tried = [float(unit * t * 2.0 ** (k / 8)) for t in TEMPERATURES for k in range(4)]
    return min(tried, key=lambda t: float(loss(t)))
