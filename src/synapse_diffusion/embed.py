"""Stimulus images -> an embedding table: the targets that decoders learn to predict."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch

from synapse_diffusion.config import Recipe
from synapse_diffusion.config.tree import digest_of
from synapse_diffusion.encoders import Encoder, build_encoder
from synapse_diffusion.errors import DataError, MissingError, StoreError
from synapse_diffusion.parallel import choose_device, use_threads
from synapse_diffusion.store.embeddings import (
    EmbeddingTable,
    VectorCache,
    open_embeddings,
    read_embeddings_manifest,
    true_rows,
    unfinished,
    write_embeddings,
)
from synapse_diffusion.store.files import locked, read_table
from synapse_diffusion.store.pictures import find_images, images_root, load_picture
from synapse_diffusion.types import NOT_AVAILABLE, Progress, Say, silent

PART: Final = 256  # images whose vectors are written at once: what a kill costs at most


@dataclass(frozen=True)
class Picture:
    """One stimulus: its file, name and content."""

    path: Path
    concept: str
    digest: str
    """SHA-256 of the file."""
    n_bytes: int

    @property
    def image_id(self) -> str:
        """The file's stem."""
        return self.path.stem


def embed(recipe: Recipe, say: Say = silent, progress: Progress = silent) -> tuple[Path, EmbeddingTable]:
    """Embed all images of `paths.images`; the table's folder, and the table, ordered by image id.

    Vectors are known by encoder, weights, layers and the images' content: what an earlier call, another data set's
    table of the same encoder, or a killed process has computed is taken over. Raises `DataError` for a picture that
    cannot be read or two of one name, `BusyError` while another process writes this table, and what `build_encoder`
    raises.
    """
    asked = look(recipe, progress)
    return asked.folder, embed_asked(recipe, asked, say, progress)


@dataclass(frozen=True)
class Asked:
    """What is to be embedded, by what, and where the table is."""

    pictures: Sequence[Picture]
    encoder: Encoder
    key: str
    """Digest of the encoder and all settings that vectors depend on."""
    folder: Path

    @property
    def images(self) -> pd.DataFrame:
        """The pictures as a table."""
        return pd.DataFrame(
            [(p.image_id, p.concept, str(p.n_bytes), p.digest) for p in self.pictures],
            columns=["image_id", "concept", "bytes", "sha256"],
        )

    def unembedded(self) -> str:
        """Why there is something to embed; empty: the table is of these images. Raises `StoreError` for damage."""
        if not self.folder.exists():
            return "this encoder has no table of this data set yet"
        there, now = (set(table.itertuples(index=False, name=None)) for table in (_images_of(self.folder), self.images))
        if there == now:
            return ""
        return f"{len(now - there)} images are new or changed, {len(there - now)} are gone or were others"


def look(recipe: Recipe, progress: Progress) -> Asked:
    """All images of `paths.images`, by content, and their encoder. Raises as `embed`."""
    root = images_root(recipe.paths)
    files = find_images(root)
    use_threads(recipe.execution.threads)
    encoder = build_encoder(recipe.embed, choose_device(recipe.execution.device))
    settings = recipe.embed
    key = digest_of(
        {"encoder": encoder.digest, "layers": encoder.layers, "token": settings.token, "precision": settings.precision}
    )
    folder = Path(recipe.paths.embeddings) / f"{recipe.data.name}-{encoder.name}-{key[:8]}"
    pictures = sorted(_identified(files, root, progress), key=lambda picture: picture.image_id)
    return Asked(pictures, encoder, key, folder)


def embed_asked(recipe: Recipe, asked: Asked, say: Say, progress: Progress) -> EmbeddingTable:
    """Embed what has no vector yet."""
    folder = asked.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{folder.name}.lock"), folder):
            table = _embedded(recipe, asked, say, progress)
    except OSError as error:
        raise MissingError(
            f"{folder}: cannot be written: {error.strerror}; free some space or set paths.embeddings"
        ) from None
    say(f"embedded: {len(table.rows)} images by {asked.encoder.name}")
    say("numbers an image: " + ", ".join(f"{layer} {vectors.shape[1]}" for layer, vectors in table.vectors.items()))
    say(str(folder))
    return table


def _embedded(recipe: Recipe, asked: Asked, say: Say, progress: Progress) -> EmbeddingTable:
    folder, encoder, key, pictures, images = asked.folder, asked.encoder, asked.key, asked.pictures, asked.images
    if folder.exists():
        table = open_embeddings(folder)
        if not asked.unembedded():
            say(f"{len(pictures)} images: all done before")
            return table
    cache = VectorCache(folder)
    for other in _tables_like(folder, key):
        cache.add(other / "vectors.safetensors", list(_images_of(other)["sha256"]))
    todo = list({p.digest: p for p in pictures if p.digest not in cache}.values())
    say(f"{len(pictures)} images: {len(todo)} to embed, {len(pictures) - len(todo)} known")
    _compute(todo, encoder, recipe, cache, progress)
    vectors = {layer: cache.read(layer, list(images["sha256"])) for layer in encoder.layers}
    about = {"name": encoder.name, "digest": encoder.digest, "size": list(encoder.size), **recipe.embed.about()}
    table = EmbeddingTable(true_rows(list(images["image_id"]), list(images["concept"])), vectors, about)
    write_embeddings(table, folder, {"images.tsv": images}, key)
    return open_embeddings(folder)


def _compute(todo: Sequence[Picture], encoder: Encoder, recipe: Recipe, cache: VectorCache, progress: Progress) -> None:
    """Embed pictures and keep them part by part; parts are whole batches, so that resuming changes no batch."""
    batch = recipe.embed.batch
    size = -(-PART // batch) * batch
    with ThreadPoolExecutor(recipe.execution.threads or None) as pool:
        for start in range(0, len(todo), size):
            part = todo[start : start + size]
            found: dict[str, list[torch.Tensor]] = {layer: [] for layer in encoder.layers}
            for at in range(0, len(part), batch):
                progress("embedding images", start + at, len(todo))
                prepared = list(pool.map(lambda p: encoder.prepare(load_picture(p.path)), part[at : at + batch]))
                for layer, vectors in encoder.encode(torch.stack(prepared).to(encoder.device) / 255.0).items():
                    found[layer].append(vectors.cpu())
            arrays = {layer: torch.cat(vectors).numpy() for layer, vectors in found.items()}
            for layer, array in arrays.items():
                if not (finite := np.isfinite(array).all(1)).all():
                    name = part[int(np.flatnonzero(~finite)[0])].path
                    raise DataError(f"{name}: its vector {layer} is not finite; check embed.weights or embed.precision")
            cache.write_part([p.digest for p in part], arrays)
    progress("embedding images", len(todo), len(todo))


def _identified(files: Sequence[Path], root: Path, progress: Progress) -> Iterator[Picture]:
    for k, path in enumerate(files):
        if k % 100 == 0:
            progress("reading images", k, len(files))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}; fetch or remove it") from None
        yield Picture(path, _concept(path, root), hashlib.sha256(content).hexdigest(), len(content))


def _concept(path: Path, root: Path) -> str:
    """The folder's name; of images beside each other, their name without THINGS' number (`aardvark_01b`)."""
    if path.parent != root:
        return path.parent.name
    match = re.fullmatch(r"(.+)_\d+[a-z]?", path.stem)
    return match[1] if match else NOT_AVAILABLE


def _images_of(folder: Path) -> pd.DataFrame:
    try:
        return read_table(folder / "images.tsv")
    except OSError:
        raise StoreError(f"{folder / 'images.tsv'}: missing; delete the folder and embed again") from None


def _tables_like(folder: Path, key: str) -> list[Path]:
    """Whole tables of the same encoder and settings: this one, its finished draft, those of other data sets."""
    found = []
    candidates = [folder, unfinished(folder) / "table", *sorted(folder.parent.glob(f"*-{key[:8]}"))]
    for path in dict.fromkeys(candidates):
        try:
            if read_embeddings_manifest(path)["key"] != key:
                continue
            open_embeddings(path)
            _images_of(path)
        except StoreError:
            continue  # damaged, or made by hand: not ours to judge here
        found.append(path)
    return found
