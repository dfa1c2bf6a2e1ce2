"""Tiny autoencoders of the TAESD family (Bohan, https://github.com/madebyollin/taesd): images in 0..1 <-> latents.

One plan for all: TAESD and TAESDXL (4 channels), TAESD3 and TAEF1 (16), TAEF2 (32, with a residual of 256 channels in
the blocks beside the latent). Numbers of channels and the residuals are read from the files' shapes. Every convolution
is 3 x 3 with padding 1, 8 pixels a side become one latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

FACTOR: Final = 8
GROUPS: Final = 4  # of the residual's GroupNorm
LIMIT: Final = 3.0  # the decoder sees x -> 3 tanh(x / 3)
ENCODER_BLOCKS: Final = (1, 3, 3, 3)
DECODER_BLOCKS: Final = (3, 3, 3, 1)
State = Mapping[str, torch.Tensor]


class Block(nn.Module):
    """Three convolutions beside a skip; before them, where the file has it, a wide residual in `pool`."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )  # fmt: skip
        self.pool = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False), nn.GroupNorm(GROUPS, inner), nn.ReLU(),
            nn.Conv2d(inner, width, 1, bias=False),
        ) if inner else None  # fmt: skip

    def forward(self, x_BDHW: torch.Tensor) -> torch.Tensor:
        """(B, D, H, W) -> the same."""
        if self.pool is not None:
            x_BDHW = x_BDHW + self.pool(x_BDHW)
        return torch.relu(x_BDHW + self.conv(x_BDHW))


class Limit(nn.Module):
    """Latents of any size, softly held within 3."""

    def forward(self, x_BDHW: torch.Tensor) -> torch.Tensor:
        """(B, D, H, W) -> the same, in -3..3."""
        return LIMIT * torch.tanh(x_BDHW / LIMIT)


def encoder(width: int, channels: int, inner: int) -> nn.Sequential:
    """Images (B, 3, H, W) in 0..1 -> latents (B, channels, H / 8, W / 8); keys as in the family's files."""
    layers: list[nn.Module] = [_conv(3, width)]
    for stage, blocks in enumerate(ENCODER_BLOCKS):
        if stage:
            layers.append(_conv(width, width, stride=2, bias=False))
        last = stage == len(ENCODER_BLOCKS) - 1
        layers.extend(Block(width, inner if last else 0) for _ in range(blocks))
    return nn.Sequential(*layers, _conv(width, channels))


def decoder(width: int, channels: int, inner: int) -> nn.Sequential:
    """Latents (B, channels, h, w) -> images (B, 3, 8 h, 8 w), about 0..1; keys as in the family's files."""
    layers: list[nn.Module] = [Limit(), _conv(channels, width), nn.ReLU()]
    for stage, blocks in enumerate(DECODER_BLOCKS):
        if stage:
            layers += [nn.Upsample(scale_factor=2), _conv(width, width, bias=False)]
        layers.extend(Block(width, inner if stage == 0 else 0) for _ in range(blocks))
    return nn.Sequential(*layers, _conv(width, 3))


def fitted(encoder_state: State, decoder_state: State) -> tuple[nn.Sequential, nn.Sequential]:
    """Both networks with these weights. Raises `ValueError`, saying which weight does not fit the plan."""
    width, _ = _shape(encoder_state, "0.weight")
    last = max((int(key.split(".")[0]) for key in encoder_state if key.split(".")[0].isdigit()), default=0)
    channels, _ = _shape(encoder_state, f"{last}.weight")
    inner = len(encoder_state.get(f"{last - 1}.pool.0.weight", ()))
    networks = encoder(width, channels, inner), decoder(width, channels, inner)
    for part, network, state in zip(("encoder", "decoder"), networks, (encoder_state, decoder_state), strict=True):
        expected = network.state_dict()
        for key in sorted(expected.keys() | state.keys()):
            found, wanted = (tuple(s[key].shape) if key in s else None for s in (state, expected))
            if found != wanted:
                raise ValueError(f"{part} weight {key} has shape {found}, expected {wanted}")
        network.load_state_dict(dict(state))
    return networks


def _shape(state: State, key: str) -> tuple[int, int]:
    if key not in state or state[key].ndim != 4:
        raise ValueError(f"encoder weight {key} is missing or not of a convolution")
    return state[key].shape[0], state[key].shape[1]


def _conv(n_in: int, n_out: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=bias)
