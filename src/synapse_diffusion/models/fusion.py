"""One network of one or several modalities: EEG alone, MEG alone, or both of one image.

Noise of two recordings is independent given the image, so evidence adds up: the sum of the modalities' log
probabilities (of unit vectors, for images) is the best that two given decoders allow, each weighted by its precision
(product of experts, Hinton 2002). The weight is of the trial: a power law in how large the output is and in how
strong the scaled signal, with three numbers a modality that validation trials decide (`runs` keep them).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from synapse_diffusion.models.base import Decoder

FUSED: Final = "fused"
N_EXPONENTS: Final = 3


class Network(nn.Module):
    """Decoders by modality; `forward` gives the outputs (B, D) of each, and of all together as `fused`.

    `unit`: outputs are directions (embeddings), and are brought to length one before they are summed.
    """

    exponent_M3: Tensor

    def __init__(self, decoders: Mapping[str, Decoder], *, unit: bool) -> None:
        super().__init__()
        self.decoders = nn.ModuleDict(dict(decoders))
        self.modalities = tuple(decoders)
        self.unit = unit
        self.register_buffer("exponent_M3", torch.zeros(len(decoders), N_EXPONENTS))

    @property
    def main(self) -> str:
        """The output that counts: the modality's, where there is but one."""
        return FUSED if len(self.modalities) > 1 else self.modalities[0]

    def forward(
        self,
        signals: Mapping[str, Tensor],
        people: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        fold_B: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Outputs (B, D) for signals (B, C, T) by modality; where `present` (B,) is 0 a modality adds nothing."""
        out = {name: self.decoder(name)(signals[name], people[name], fold_B) for name in self.modalities}
        if len(out) > 1:
            evidence = {name: strengths(out[name], signals[name]) for name in out}
            out[FUSED] = self.fuse({name: out[name] for name in self.modalities}, evidence, present)
        return out

    def fuse(self, out: Mapping[str, Tensor], strength: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """The precision-weighted sum (B, D) of outputs (B, D); `strength` (B, 2) as of `strengths`."""
        total = torch.zeros_like(next(iter(out.values())))
        for exponent_3, name in zip(self.exponent_M3, self.modalities, strict=True):
            value = functional.normalize(out[name], dim=1) if self.unit else out[name]
            weight_B = (exponent_3[0] + strength[name] @ exponent_3[1:]).exp() * present[name]
            total = total + weight_B[:, None] * value
        return total

    def views(
        self, signals: Mapping[str, Tensor], people: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> list[tuple[Decoder, Tensor, Tensor]]:
        """Each decoder whose signals are there, with them and the people that it sees."""
        del present
        return [(self.decoder(name), signals[name], people[name]) for name in self.modalities if name in signals]

    def decoder(self, modality: str) -> Decoder:
        """The decoder of one modality."""
        found = self.decoders[modality]
        assert isinstance(found, Decoder)
        return found

    def linear_penalty(self) -> Tensor:
        """Minus the log prior of all decoders' linear weights."""
        return torch.stack([self.decoder(name).linear_penalty() for name in self.modalities]).sum()

    def linear_parameters(self) -> list[nn.Parameter]:
        """Those that the penalty holds."""
        return [p for name in self.modalities for p in self.decoder(name).linear_parameters()]


def strengths(out_BD: Tensor, x_BCT: Tensor) -> Tensor:
    """Logarithms (B, 2) of the output's length and of the scaled signal's root mean square."""
    length_B = out_BD.detach().norm(dim=1).clamp_min(1e-6)
    power_B = x_BCT.square().mean((1, 2)).clamp_min(1e-12)
    return torch.stack([length_B.log(), 0.5 * power_B.log()], 1)


class EarlyNetwork(nn.Module):
    """Early fusion: one decoder of all modalities' sensors end to end, for equal rates and windows; no people."""

    def __init__(self, decoder: Decoder, modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.joint, self.modalities, self.main = decoder, modalities, FUSED

    def forward(
        self,
        signals: Mapping[str, Tensor],
        people: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        fold_B: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The output (B, D), signals of an absent modality set to zero."""
        [(_, x_BCT, person_B)] = self.views(signals, people, present)
        return {FUSED: self.joint(x_BCT, person_B, fold_B)}

    def views(
        self, signals: Mapping[str, Tensor], people: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> list[tuple[Decoder, Tensor, Tensor]]:
        """The decoder with all sensors (B, C, T)."""
        x_BCT = torch.cat([signals[name] * present[name][:, None, None] for name in self.modalities], 1)
        return [(self.joint, x_BCT, torch.zeros_like(people[self.modalities[0]]))]

    def linear_penalty(self) -> Tensor:
        """Minus the log prior of the decoder's linear weights."""
        return self.joint.linear_penalty()

    def linear_parameters(self) -> list[nn.Parameter]:
        """Those that the penalty holds."""
        return self.joint.linear_parameters()
