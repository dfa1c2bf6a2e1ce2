"""Tiny Darknet (Redmon 2016, https://pjreddie.com/darknet/tiny-darknet): a 4 MB ImageNet classifier, from a local file.

Keys of the file: `conv{k}.weight` (k = 0..15), `bn{k}.weight|bias|running_mean|running_var` (k = 0..14), `conv15.bias`.
Numbers of channels are the file's own, so that any network of this plan fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
CPU_BATCH: Final = 8  # the maps of more pictures leave the caches: 1.5 x slower at 32


def build_darknet(path: Path, device: torch.device) -> Tower:
    """Layers `conv0` .. `conv15`, pooled as asked, and `logits` (one value a class).

    Raises `MissingError` where the file is not there, `DataError` where it is not such a network.
    """
    state = _load(path)
    convolutions = [
        (weight_DCHW.to(device, memory_format=torch.channels_last), bias_D.to(device))
        for weight_DCHW, bias_D in folded(state)
    ]

    def forward(images_B3HW: torch.Tensor, layers: Sequence[str], token: str) -> dict[str, torch.Tensor]:
        if token == "cls":
            raise SettingsError(f"embed.token = 'cls': {path.stem} has no class token; take mean, max or grid")
        size = CPU_BATCH if device.type == "cpu" else len(images_B3HW)
        found = [
            {
                name: map_BDHW.mean((2, 3)) if name == "logits" else pooled(map_BDHW, token)
                for name, map_BDHW in maps(part_B3HW, convolutions)
                if name in layers
            }
            for part_B3HW in torch.split(images_B3HW, size)
        ]
        return {name: torch.cat([part[name] for part in found]) for name in layers}

    preparation = Preparation(SIZE, (SIZE, SIZE), BILINEAR)
    digest = state_digest(state, "darknet 1", preparation)
    about = f"conv0 .. conv{LAST}, logits"
    return Tower(path.stem, preparation, LAYERS, ("conv14", "logits"), digest, forward, about)


def folded(state: Mapping[str, torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each convolution's weight (D, C, H, W) and bias (D,), with the normalisation of its output in them."""
    found = []
    for k in range(LAST):
        mean, variance, scale, bias = (
            state[f"bn{k}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        scale_D = scale / torch.sqrt(variance + 1e-3)
        found.append((state[f"conv{k}.weight"] * scale_D[:, None, None, None], bias - mean * scale_D))
    return [*found, (state[f"conv{LAST}.weight"], state[f"conv{LAST}.bias"])]


def maps(
    x_BDHW: torch.Tensor, convolutions: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Images in 0..1 -> each convolution's name and output (B, D, H, W), before any pooling; `logits` is the last's."""
    x_BDHW = x_BDHW.contiguous(memory_format=torch.channels_last)
    for k, (weight, bias) in enumerate(convolutions):
        x_BDHW = functional.conv2d(x_BDHW, weight, bias, padding=weight.shape[2] // 2)
        if k < LAST:
            x_BDHW = functional.leaky_relu_(x_BDHW, 0.1)
        yield f"conv{k}", x_BDHW
        if k in POOL_AFTER:
            x_BDHW = functional.max_pool2d(x_BDHW, 2, 2, ceil_mode=True)
    yield "logits", x_BDHW


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
