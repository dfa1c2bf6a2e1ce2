"""The second door: a pretrained pipeline draws what the brain says of an image's vector.

Rows hold components of conditions, as for our own generator; here they go back into the image encoder's space, in its
own scale. The coarse copy that the brain says is, if asked for, where sampling begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.config import EmbedSettings, PretrainedSettings, Recipe, ReconstructSettings
from synapse_diffusion.config.tree import digest_of
from synapse_diffusion.encoders import Encoder, build_encoder
from synapse_diffusion.encoders.autoencoders import Autoencoder
from synapse_diffusion.encoders.pipeline_files import Found, find_pipeline
from synapse_diffusion.encoders.pipelines import Pipeline, load_pipeline
from synapse_diffusion.errors import MissingError, SettingsError, StoreError
from synapse_diffusion.parallel import choose_device
from synapse_diffusion.store.embeddings import EmbeddingTable, open_embeddings
from synapse_diffusion.store.pictures import load_picture
from synapse_diffusion.training.conditions import LOW, SEMANTIC, Conditions
from synapse_diffusion.training.pictured import Files, Generator

# of pixels, which CLIP's processors take off (Radford et al. 2021)
CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
PROBES: Final = 4  # training images whose vectors are compared with the encoder's
TOLERANCE: Final = 0.05  # of a vector's length: room for half precision, none for another network
UNUSED: Final = ("weights", "adapter", "encoder", "table", "variant", "offload")
"""Settings that say where things are: what they hold is in the digest, or changes no picture."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pretrained:
    """A pipeline, and what turns rows of conditions into its vectors."""

    conditions: Conditions
    autoencoder: Autoencoder
    pipeline: Pipeline
    images: EmbeddingTable
    """The images' own vectors."""
    length: float
    """Mean length of the training images' vectors."""
    unknown_D: Floats
    """What the pipeline takes for no vector."""
    about: Mapping[str, Any]
    """All that its pictures depend on, beside `reconstruct` and the run."""

    def pictures(self, table: EmbeddingTable, settings: ReconstructSettings) -> torch.Tensor:
        """Pictures (N, 3, H, W) in 0..1 of rows of conditions; noise follows from seed, image and draw."""
        draws = [
            draws_of(settings.seed, str(image), int(draw))
            for image, draw in zip(table.rows["image_id"], table.rows["draw"], strict=True)
        ]
        first = None
        if LOW in self.conditions.axes:
            low = self.conditions.low_images(torch.from_numpy(table.vectors[LOW])) * self.conditions.low_scale
            first = ((low + 1) / 2).clamp(0, 1)
        return self.pipeline.paint(
            self.vectors(table), self.unknown_D, draws, settings.sampling_steps, settings.guidance, first
        )

    def vectors(self, table: EmbeddingTable) -> Floats:
        """Rows of conditions as vectors (N, D) of the image encoder; rows of source `true` exactly."""
        choices = self.pipeline.settings
        vectors_ND = self.conditions.axes[SEMANTIC].back(table.vectors[SEMANTIC]) / self.conditions.scale_D
        if choices.length == "images":
            vectors_ND *= self.length / np.linalg.norm(vectors_ND, axis=1, keepdims=True).clip(1e-12)
        source_N = table.rows["source"].to_numpy(dtype=str)
        if choices.no_brain == "unconditional":
            vectors_ND[source_N == "none"] = self.unknown_D
        true_N = source_N == "true"
        vectors_ND[true_N] = self.images.select(list(table.rows["image_id"][true_N])).vectors[choices.layer]
        return np.asarray(vectors_ND, dtype=np.float32)


Source = Generator | Pretrained
"""What `reconstruct` can draw with."""


def draws_of(seed: int, image: str, draw: int) -> torch.Generator:
    """All random numbers of one picture, on the CPU: the same whatever it is drawn from and beside which others."""
    state = int(np.random.SeedSequence([seed, draw, *image.encode()]).generate_state(1)[0])
    return torch.Generator().manual_seed(state)


def find_pretrained(recipe: Recipe) -> Found | None:
    """The pipeline's files, where the recipe asks for one; before any other work.

    Raises `SettingsError` for settings that it has no use for, and what `find_pipeline` raises.
    """
    settings, sampling = recipe.pretrained, recipe.reconstruct
    if settings.pipeline == "none":
        return None
    if sampling.sampler != "auto":
        raise SettingsError(
            f"reconstruct.sampler = {sampling.sampler!r}: pretrained pipelines bring their own; take 'auto'"
        )
    if sampling.guidance < 1:
        raise SettingsError(f"reconstruct.guidance = {sampling.guidance:g}: pipelines know none (1) and more")
    if not recipe.generator.components:
        raise SettingsError("generator.components = 0: a pretrained pipeline is told an image's vector and needs some")
    if settings.strength < 1 and not recipe.generator.low_side:
        raise SettingsError("pretrained.strength < 1 begins at the coarse copy; set generator.low_side above 0")
    if int(sampling.sampling_steps * settings.strength) < 1:
        raise SettingsError(
            f"pretrained.strength = {settings.strength:g} of reconstruct.sampling_steps = {sampling.sampling_steps} "
            "leaves no step; raise one of them"
        )
    return find_pipeline(settings, choose_device(recipe.execution.device))


def image_vectors(recipe: Recipe, table: EmbeddingTable, width: int) -> EmbeddingTable:
    """The vectors that the pipeline takes, for the images of the decoder's table, in its order.

    Raises `StoreError` where the table has no such layer, another width, or lacks images.
    """
    settings, found = recipe.pretrained, table
    if settings.table:
        found = open_embeddings(Path(recipe.paths.embeddings) / settings.table, (settings.layer,))
    elif settings.layer not in table.vectors:
        raise StoreError(
            f"the decoder was trained with layers {', '.join(table.vectors)} and without {settings.layer}; name a "
            "table that has it by pretrained.table"
        )
    there = found.vectors[settings.layer].shape[1]
    if there != width:
        raise StoreError(
            f"layer {settings.layer} of the embedding table ({found.encoder.get('name')}) has {there} numbers, and "
            f"{settings.weights} takes {width}; embed the images with its image encoder and name it by pretrained.table"
        )
    rows = found.select(list(table.rows["image_id"]))
    return EmbeddingTable(rows.rows, {settings.layer: rows.vectors[settings.layer]}, found.encoder, found.digest)


def open_pretrained(
    recipe: Recipe, found: Found, images: EmbeddingTable, train: Sequence[str], files: Files, device: torch.device
) -> tuple[Pretrained, str]:
    """The pipeline, loaded and found to take these vectors; and the digest of all that its pictures depend on.

    Raises `StoreError` where the vectors are not those of the pipeline's encoder, and what `load_pipeline` raises.
    """
    settings, size = recipe.pretrained, recipe.generator.size
    files_digest = files.digest(train)
    encoder = _encoder(found)
    _check_encoder(encoder, images.select(train[:PROBES]), settings, files)
    unknown_D = _unknown(encoder, settings, found.width)
    encoder_digest = encoder.digest
    del encoder  # of gigabytes; it was on the CPU
    pipeline = load_pipeline(found, settings, device)
    trained = images.select(train)
    low_side = recipe.generator.low_side if settings.strength < 1 else 0
    pictures = files.small(train, size) if low_side else np.zeros((len(train), 3, 1, 1), np.uint8)
    conditions = Conditions.fit(
        trained.vectors, pictures, recipe.generator.components, low_side, recipe.generator.low_components
    )
    length = float(np.linalg.norm(trained.vectors[settings.layer], axis=1).mean())
    about = {
        "settings": {name: value for name, value in settings.model_dump(mode="json").items() if name not in UNUSED},
        "conditions": [recipe.generator.components, low_side, recipe.generator.low_components, size],
        "pipeline": pipeline.digest, "encoder": encoder_digest, "table": images.digest, "images": files_digest,
    }  # fmt: skip
    door = Pretrained(conditions, pipeline.autoencoder(size), pipeline, images, length, unknown_D, about)
    return door, digest_of(about)


def _encoder(found: Found) -> Encoder:
    try:
        return build_encoder(EmbedSettings(encoder="transformers", weights=found.encoder, layers=("projection",)))
    except MissingError as error:
        raise MissingError(str(error).replace("embed.weights", "pretrained.encoder")) from None


def _check_encoder(encoder: Encoder, some: EmbeddingTable, settings: PretrainedSettings, files: Files) -> None:
    """Are the table's vectors what the pipeline's encoder gives, in its own scale?"""
    ids = list(some.rows["image_id"])
    pictures = torch.stack([encoder.prepare(load_picture(files.paths[image])) for image in ids]) / 255.0
    own_ND = encoder.encode(pictures)["projection"].cpu().numpy()
    table_ND = some.vectors[settings.layer]
    if own_ND.shape != table_ND.shape:
        raise StoreError(
            f"pretrained.encoder gives {own_ND.shape[1]} numbers an image and {settings.weights} takes "
            f"{table_ND.shape[1]}; name the image encoder that the pipeline was trained with"
        )
    own_N, table_N = (np.linalg.norm(x, axis=1) for x in (own_ND, table_ND))
    if (np.linalg.norm(own_ND - table_ND, axis=1) > TOLERANCE * own_N).any():
        cosine = float(((own_ND * table_ND).sum(1) / np.maximum(own_N * table_N, 1e-12)).min())
        raise StoreError(
            f"layer {settings.layer} of the embedding table is not what the pipeline's image encoder {encoder.name} "
            f"gives (cosine {cosine:.2f}, length {table_N[0]:.3g} for {own_N[0]:.3g}); embed the images with "
            "embed.encoder=transformers and that encoder's weights, and name the table by pretrained.table"
        )


def _unknown(encoder: Encoder, settings: PretrainedSettings, width: int) -> Floats:
    """No vector: zeros, as diffusers' pipelines take; for Kandinsky, that of an image of nothing but CLIP's mean."""
    if settings.pipeline != "kandinsky":
        return np.zeros(width, np.float32)
    empty = torch.tensor(CLIP_MEAN)[None, :, None, None].expand(1, 3, *encoder.size)
    return np.asarray(encoder.encode(empty)["projection"][0].cpu().numpy(), dtype=np.float32)
