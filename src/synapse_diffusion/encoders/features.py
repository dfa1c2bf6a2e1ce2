"""The columns of a table of reconstructions: which network's features each is of, or why it is missing.

A column bears the literature's name (AlexNet-2, Inception, ...) only where network and layer are the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.config import EmbedSettings
from synapse_diffusion.encoders import Encoder, build_encoder, perceptual
from synapse_diffusion.encoders.pixels import Tower
from synapse_diffusion.errors import MissingError, SynapseError

Use = Literal["two_way", "correlation_distance", "squared_distance", "n_way"]
Precision = Literal["float32", "bfloat16"]
PUBLISHED: Final[Mapping[str, Use]] = {
    "AlexNet-2": "two_way", "AlexNet-5": "two_way", "Inception": "two_way", "CLIP": "two_way",
    "EffNet": "correlation_distance", "SwAV": "correlation_distance", "LPIPS": "squared_distance",
    "DreamSim": "correlation_distance", "ViT-H/14 classes": "n_way",
}  # fmt: skip
"""Ozcelik & VanRullen 2023, Scotti et al. 2023; LPIPS, DreamSim; n-way: Chen et al. 2023."""
DARKNET: Final = {"early": "conv1", "middle": "conv5", "late": "conv14"}  # 112, 56 and 14 pixels a side


@dataclass(frozen=True)
class Weights:
    """Where networks are. What is not named is missing; nothing is downloaded but by a name on huggingface.co."""

    folder: str = ""
    """Published files of torchvision's networks, SwAV and LPIPS; empty: torch hub's cache."""
    clip: str = ""
    """CLIP ViT-L/14 for transformers: folder or name (`openai/clip-vit-large-patch14`)."""
    dreamsim: str = ""
    """Folder of DreamSim's ensemble checkpoint."""
    darknet: str = ""
    """Tiny Darknet in safetensors: a small offline stand-in, whose columns bear its name."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Further columns of two-way identification: their names, and vision models of transformers (folder or name)."""


@dataclass(frozen=True)
class Column:
    """Features of pictures under a name; `use` says what is computed from them."""

    name: str
    use: Use
    encoder: Encoder
    layer: str

    @property
    def about(self) -> dict[str, Any]:
        """What results name: network, layer, digest of its weights and of what is done to pixels, precision."""
        encoder = self.encoder
        return {
            "name": self.name, "use": self.use, "network": encoder.name, "layer": self.layer, "token": encoder.token,
            "digest": encoder.digest, "precision": encoder.precision,
        }  # fmt: skip


@dataclass(frozen=True)
class Missing:
    """A column that cannot be computed here."""

    name: str
    why: str


def build_columns(
    weights: Weights, device: torch.device | str = "cpu", precision: Precision = "float32"
) -> list[Column | Missing]:
    """All published columns in the literature's order, each or why not; then those of Tiny Darknet, and `others`.

    Raises `ValueError` where one of `others` takes a name that is taken.
    """
    if taken := [name for name in weights.others if name in PUBLISHED or name.startswith("TinyDarknet")]:
        raise ValueError(f"{taken[0]} is another column's name")
    device = torch.device(device)
    folder = Path(weights.folder) if weights.folder else None

    def vision(network: perceptual.Network) -> Callable[[], Encoder]:
        return lambda: _encoder(perceptual.build_torchvision(network, folder, device), device, precision)

    def hub(name: str) -> Callable[[], Encoder]:
        return lambda: build_encoder(EmbedSettings(encoder="transformers", weights=name, precision=precision), device)

    dreamsim = Path(weights.dreamsim) if weights.dreamsim else None
    found = [
        *_columns({"AlexNet-2": "conv2", "AlexNet-5": "conv5"}, vision(perceptual.ALEXNET)),
        *_columns({"Inception": "avgpool"}, vision(perceptual.INCEPTION)),
        *_columns({"CLIP": "projection"}, lambda: _clip(weights.clip, device, precision)),
        *_columns({"EffNet": "avgpool"}, vision(perceptual.EFFICIENTNET)),
        *_columns({"SwAV": "avgpool"}, vision(perceptual.SWAV)),
        *_columns({"LPIPS": "lpips"}, lambda: _encoder(perceptual.build_lpips(folder, device), device, precision)),
        *_columns(
            {"DreamSim": "embedding"}, lambda: _encoder(perceptual.build_dreamsim(dreamsim, device), device, precision)
        ),
        *_columns({"ViT-H/14 classes": "logits"}, vision(perceptual.VIT_H)),
    ]
    if weights.darknet:
        layers = {f"TinyDarknet-{name}": layer for name, layer in DARKNET.items()} | {"TinyDarknet classes": "logits"}
        settings = EmbedSettings(
            encoder="darknet", weights=weights.darknet, layers=tuple(layers.values()), token="grid", precision=precision
        )
        found += _columns(layers, lambda: build_encoder(settings, device))
    for name, where in weights.others.items():
        found += _columns({name: ""}, hub(where))
    return found


def features(
    columns: Sequence[Column | Missing], images: torch.Tensor, batch: int = 32
) -> dict[str, NDArray[np.float32]]:
    """Features (K, D) by column, of images (K, 3, H, W) in 0..1; (K, S, D) of samples (K, S, 3, H, W).

    Each network is asked once for all its columns, `batch` pictures at a time.
    """
    flat_N3HW = images.reshape(-1, *images.shape[-3:])
    of_encoder: dict[int, list[Column]] = {}
    for column in columns:
        if isinstance(column, Column):
            of_encoder.setdefault(id(column.encoder), []).append(column)
    found: dict[str, NDArray[np.float32]] = {}
    for group in of_encoder.values():
        parts = [group[0].encoder.encode(part_B3HW) for part_B3HW in torch.split(flat_N3HW, batch)]
        for column in group:
            vectors_ND = torch.cat([part[column.layer].cpu() for part in parts]).numpy()
            found[column.name] = vectors_ND.reshape(*images.shape[:-3], -1)
    return found


def _columns(layers: Mapping[str, str], build: Callable[[], Encoder]) -> list[Column | Missing]:
    """Columns of one network; an empty layer is the network's usual one."""
    try:
        encoder = build()
    except SynapseError as error:
        return [Missing(name, str(error)) for name in layers]
    return [Column(name, _use(name), encoder, layer or encoder.layers[0]) for name, layer in layers.items()]


def _use(name: str) -> Use:
    return PUBLISHED.get(name, "n_way" if name.endswith(" classes") else "two_way")


def _encoder(tower: Tower, device: torch.device, precision: Precision) -> Encoder:
    return Encoder(tower, tower.layers, (), "auto", precision, device)


def _clip(weights: str, device: torch.device, precision: Precision) -> Encoder:
    """CLIP ViT-L/14 and no other: 24 blocks, an embedding of 768, pictures of 224 x 224."""
    if not weights:
        raise MissingError("no weights named for CLIP ViT-L/14: a folder, or openai/clip-vit-large-patch14")
    encoder = build_encoder(EmbedSettings(encoder="transformers", weights=weights, precision=precision), device)
    blocks = sum(layer.startswith("block_") for layer in encoder.tower.layers) - 1
    width = encoder.encode(torch.zeros(1, 3, *encoder.size))[encoder.layers[0]].shape[1]
    if (blocks, width, encoder.size) != (24, 768, (224, 224)):
        raise MissingError(
            f"{weights}: {blocks} blocks, {width} numbers, {encoder.size[0]} x {encoder.size[1]} pixels are not CLIP "
            "ViT-L/14's 24, 768, 224 x 224; name it among the others"
        )
    return encoder
