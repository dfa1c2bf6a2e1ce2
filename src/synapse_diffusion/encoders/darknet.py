"""Tiny Darknet (Redmon 2016, https://pjreddie.com/darknet/tiny-darknet): a 4 MB ImageNet classifier, from a local file.

Keys of the file: `conv{k}.weight` (k = 0..15), `bn{k}.weight|bias|running_mean|running_var` (k = 0..14), `conv15.bias`.
Numbers of channels are the file's own, so that any network of this plan fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch.nn import functional

from synapse_diffusion.encoders.pixels import BILINEAR, Preparation, Tower, pooled, state_digest
from synapse_diffusion.errors import DataError, MissingError, SettingsError

SIZE: Final = 224
LAST: Final = 15
POOL_AFTER: Final = (0, 1, 5, 9)
LAYERS: Final = (*(f"conv{k}" for k in range(LAST + 1)), "logits")


def build_darknet(path: Path, device: torch.device) -> Tower:
    """Layers `conv0` .. `conv15`, pooled as asked, and `logits` (one value a class).

    Raises `MissingError` where the file is not there, `DataError` where it is not such a network.
    """
    state = {name: tensor.to(device) for name, tensor in _load(path).items()}

    def forward(images_B3HW: torch.Tensor, layers: Sequence[str], token: str) -> dict[str, torch.Tensor]:
        if token == "cls":
            raise SettingsError(f"embed.token = 'cls': {path.stem} has no class token; take mean, max or grid")
        return {
            name: map_BDHW.mean((2, 3)) if name == "logits" else pooled(map_BDHW, token)
            for name, map_BDHW in maps(images_B3HW, state).items()
            if name in layers
        }

    preparation = Preparation(SIZE, (SIZE, SIZE), BILINEAR)
    digest = state_digest(state, "darknet 1", preparation)
    about = f"conv0 .. conv{LAST}, logits"
    return Tower(path.stem, preparation, LAYERS, ("conv14", "logits"), digest, forward, about)


def maps(x_BDHW: torch.Tensor, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Images in 0..1 -> each convolution's output (B, D, H, W), before any pooling; `logits` is that of the last."""
    found = {}
    for k in range(LAST + 1):
        weight = state[f"conv{k}.weight"]
        x_BDHW = functional.conv2d(x_BDHW, weight, state.get(f"conv{k}.bias"), padding=weight.shape[2] // 2)
        if k < LAST:
            mean, variance, scale, bias = (
                state[f"bn{k}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
            )
            x_BDHW = functional.batch_norm(x_BDHW, mean, variance, scale, bias, eps=1e-3)
            x_BDHW = functional.leaky_relu(x_BDHW, 0.1)
        found[f"conv{k}"] = x_BDHW
        if k in POOL_AFTER:
            x_BDHW = functional.max_pool2d(x_BDHW, 2, 2, ceil_mode=True)
    return found | {"logits": x_BDHW}


def _load(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise MissingError(f"{path}: no such file; set embed.weights to a Tiny Darknet in safetensors")
    try:
        state = {name: tensor.float() for name, tensor in load_file(path).items()}
    except Exception as error:  # safetensors raises a class of its own for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a readable safetensors file ({reason}); fetch it again") from None
    expected = {f"conv{k}.weight": () for k in range(LAST + 1)}
    channels = 3
    for k in range(LAST + 1):
        weight = state.get(f"conv{k}.weight")
        if weight is None or weight.ndim != 4 or weight.shape[1] != channels:
            shape = "not there" if weight is None else f"of shape {tuple(weight.shape)}"
            raise DataError(f"{path}: not a Tiny Darknet: conv{k}.weight is {shape}, for {channels} channels")
        channels = weight.shape[0]
        names = (
            [f"conv{k}.bias"]
            if k == LAST
            else [f"bn{k}.{n}" for n in ("weight", "bias", "running_mean", "running_var")]
        )
        for name in names:
            if name not in state or state[name].shape != (channels,):
                raise DataError(f"{path}: not a Tiny Darknet: {name} is missing or not of {channels} values")
        expected |= dict.fromkeys(names, ())
    return {name: state[name] for name in expected}
