"""What a generator is conditioned on: an image's vectors and a coarse copy of it, as whitened principal components.

True conditions and those that a brain predicts are one type, an `EmbeddingTable` of layers `semantic` and `low`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from synapse_diffusion.errors import StoreError
from synapse_diffusion.store.embeddings import EmbeddingTable

SEMANTIC: Final = "semantic"
LOW: Final = "low"
DOUBT: Final = "low_doubt"
"""Variance of the coarse copy's components that is left, given what is said of them: 0 of the truth, 1 of no brain."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Axes:
    """Principal axes of D numbers: E components of mean 0 and variance 1 over the rows that they were fitted on."""

    mean_D: Floats
    into_DE: Floats
    back_ED: Floats

    @classmethod
    def fit(cls, x_ND: NDArray[np.floating], components: int) -> Axes:
        """Of rows (N, D): at most `components`, and those that vary at all."""
        mean_D = x_ND.mean(0, dtype=np.float64)
        _, length_R, axis_RD = np.linalg.svd(x_ND - mean_D, full_matrices=False)
        kept = min(components, int((length_R > 1e-6 * max(length_R[0], 1e-30)).sum()))
        deviation_E = length_R[:kept] / np.sqrt(len(x_ND))
        into_DE, back_ED = axis_RD[:kept].T / deviation_E, axis_RD[:kept] * deviation_E[:, None]
        return cls(*(a.astype(np.float32) for a in (mean_D, into_DE, back_ED)))

    def into(self, x_ND: NDArray[np.floating]) -> Floats:
        """Components (N, E)."""
        return np.asarray((x_ND - self.mean_D) @ self.into_DE, dtype=np.float32)

    def back(self, z_NE: NDArray[np.floating]) -> Floats:
        """Rows (N, D) of these components."""
        return np.asarray(z_NE @ self.back_ED + self.mean_D, dtype=np.float32)


@dataclass(frozen=True)
class Conditions:
    """How conditions are made of vectors and pictures; fitted on training images."""

    axes: Mapping[str, Axes]
    """Of `semantic` and `low`, as far as there are these."""
    layers: Mapping[str, int]
    """Of the embedding table: numbers a vector."""
    scale_D: Floats
    """Of the layers' numbers end to end: 1 / (deviation sqrt(numbers of the layer))."""
    low_side: int
    low_scale: float
    """Deviation of the coarse copies' values: the network sees them divided by it."""

    @classmethod
    def fit(
        cls, vectors: Mapping[str, Floats], pictures_N3HW: NDArray[np.uint8], components: int, low_side: int,
        low_components: int,
    ) -> Conditions:  # fmt: skip
        """From training images' vectors (by layer) and pictures."""
        axes, scale_D = {}, np.ones(0, np.float32)
        if components:
            parts = [
                np.full(v.shape[1], v.shape[1] ** -0.5) / np.maximum(v.std(0), 1e-6 * max(float(v.std()), 1e-12))
                for v in vectors.values()
            ]
            scale_D = np.concatenate(parts).astype(np.float32)
            axes[SEMANTIC] = Axes.fit(np.concatenate(list(vectors.values()), 1) * scale_D, components)
        low_scale = 1.0
        if low_side:
            coarse_ND = coarse(pictures_N3HW, low_side)
            axes[LOW] = Axes.fit(coarse_ND, low_components)
            low_scale = float(coarse_ND.std())
        layers = {name: v.shape[1] for name, v in vectors.items()} if components else {}
        return cls(axes, layers, scale_D, low_side, low_scale)

    @property
    def sizes(self) -> dict[str, int]:
        """Components by condition."""
        return {name: axes.into_DE.shape[1] for name, axes in self.axes.items()}

    def of_images(self, table: EmbeddingTable, pictures_N3HW: NDArray[np.uint8]) -> EmbeddingTable:
        """True conditions of the table's images, in its order. Raises `StoreError` where the table does not fit."""
        found: dict[str, Floats] = {}
        if SEMANTIC in self.axes:
            for name, width in self.layers.items():
                there = table.vectors[name].shape[1] if name in table.vectors else 0
                if there != width:
                    has = f"has {there} numbers" if there else "is missing"
                    raise StoreError(
                        f"layer {name} of the embedding table {has}, and the generator was trained with {width}; "
                        "give it the table that it was trained with, or train generator again"
                    )
            joined = np.concatenate([table.vectors[name] for name in self.layers], 1)
            found[SEMANTIC] = self.axes[SEMANTIC].into(joined * self.scale_D)
        if LOW in self.axes:
            found[LOW] = self.axes[LOW].into(coarse(pictures_N3HW, self.low_side))
        return EmbeddingTable(table.rows, found, {"kind": "conditions", **table.encoder})

    def low_images(self, z_BE: Tensor) -> Tensor:
        """The coarse copies (B, 3, h, h) of components, as the network sees them."""
        back_ED = torch.from_numpy(self.axes[LOW].back_ED).to(z_BE)
        return (z_BE @ back_ED).reshape(-1, 3, self.low_side, self.low_side) / self.low_scale

    def tensors(self) -> dict[str, Tensor]:
        """To be kept; `from_tensors` takes them."""
        found = {"scale_D": torch.from_numpy(self.scale_D)}
        for name, axes in self.axes.items():
            found |= {f"{name}.{part}": torch.from_numpy(value) for part, value in vars(axes).items()}
        return found

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], layers: Mapping[str, int], low_side: int, low_scale: float
    ) -> Conditions:
        """What was kept."""
        names = [name for name in (SEMANTIC, LOW) if f"{name}.mean_D" in tensors]
        parts = ("mean_D", "into_DE", "back_ED")
        axes = {name: Axes(*(tensors[f"{name}.{part}"].numpy() for part in parts)) for name in names}
        return cls(axes, dict(layers), tensors["scale_D"].numpy(), low_side, low_scale)


def coarse(pictures_N3HW: NDArray[np.uint8], side: int) -> Floats:
    """Pictures at `side` pixels, in -1..1, flattened (N, 3 side^2): bilinear, averaging over what shrinks."""
    images = torch.from_numpy(pictures_N3HW).float() / 127.5 - 1
    small = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return np.asarray(small.flatten(1).numpy())


def doubted(z_BE: Tensor, r_BE: Tensor, noise_BE: Tensor) -> Tensor:
    """Conditions as a calibrated prediction of accuracy r would give them: r^2 z + r sqrt(1 - r^2) noise.

    For z of variance 1 that has variance r^2, correlation r with z, and is what one expects z to be, given it: the
    three properties of a regression's prediction. The variance of z that is left is 1 - r^2.
    """
    return r_BE.square() * z_BE + r_BE * (1 - r_BE.square()).sqrt() * noise_BE


def accuracies(share_B1: Tensor, decay_B1: Tensor, n: int) -> Tensor:
    """r (B, n), which falls from `share` over the components, by e each `decay` of them."""
    return share_B1 * torch.exp(-torch.arange(n).to(share_B1) / decay_B1)


def condition_rows(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    """Rows of a table of another source."""
    return rows.assign(source=source)
