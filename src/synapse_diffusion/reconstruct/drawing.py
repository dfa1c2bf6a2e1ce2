"""Pictures of a table of conditions, each in a file of its own: what is there already is not drawn again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from synapse_diffusion.config import ReconstructSettings
from synapse_diffusion.reconstruct.pretrained import Pretrained, Source
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.store.files import whole
from synapse_diffusion.store.pictures import small_pictures
from synapse_diffusion.training.painter import noise_of, paint
from synapse_diffusion.types import Progress

Pictures = NDArray[np.uint8]


def draw(
    generator: Source, table: EmbeddingTable, settings: ReconstructSettings, folder: Path, side: int, progress: Progress
) -> Pictures:
    """Pictures (N, 3, side, side) of the table's rows, kept as SOURCE/PERSON/kK/IMAGE-DRAW.png, in the size in which
    they were drawn.

    The noise follows from seed, image and draw, and parts are always the same rows: killed and started again, the
    same files come out.
    """
    paths = [_path(folder, row) for row in table.rows.to_dict("records")]
    for start in range(0, len(paths), settings.batch):
        progress("drawing pictures", start, len(paths))
        part = slice(start, start + settings.batch)
        if all(path.exists() for path in paths[part]):
            continue
        for picture_3HW, path in zip(_painted(generator, table, settings, part), paths[part], strict=True):
            save_picture(picture_3HW, path)
    progress("drawing pictures", len(paths), len(paths))
    return np.stack([read_picture(path, side) for path in paths])


def _painted(generator: Source, table: EmbeddingTable, settings: ReconstructSettings, part: slice) -> Pictures:
    if isinstance(generator, Pretrained):
        return as_bytes(generator.pictures(_rows(table, part), settings))
    device, rows = next(generator.painter.parameters()).device, table.rows[part]
    noise = [
        noise_of(settings.seed, [str(image)], int(sample), generator.painter.shape)
        for image, sample in zip(rows["image_id"], rows["draw"], strict=True)
    ]
    components = {name: torch.from_numpy(z[part]).to(device) for name, z in table.vectors.items()}
    latents = paint(generator.painter, generator.conditions, components, torch.cat(noise).to(device), settings)
    return as_bytes(generator.autoencoder.decode(latents))


def _rows(table: EmbeddingTable, part: slice) -> EmbeddingTable:
    return EmbeddingTable(table.rows[part], {name: z[part] for name, z in table.vectors.items()}, table.encoder)


def as_bytes(images_B3HW: torch.Tensor) -> Pictures:
    """Images in 0..1 as bytes."""
    return np.asarray((images_B3HW.cpu() * 255).round().clamp(0, 255).to(torch.uint8).numpy())


def _path(folder: Path, row: Mapping[Hashable, Any]) -> Path:
    person = str(row["person"]).replace("/", "-")
    return folder / str(row["source"]) / person / f"k{row['k_repeats']}" / f"{row['image_id']}-{row['draw']}.png"


def save_picture(picture_3HW: Pictures, path: Path) -> None:
    """As PNG, whole or not there."""
    with whole(path) as part:
        Image.fromarray(np.ascontiguousarray(picture_3HW.transpose(1, 2, 0))).save(part, format="png")


def read_picture(path: Path, side: int) -> Pictures:
    """(3, side, side), made smaller as seen pictures are."""
    [picture] = small_pictures([path], side)
    return np.asarray(picture)
