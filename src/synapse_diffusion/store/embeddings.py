"""Embedding tables: vectors of images, true ones or predicted from a brain, in a folder that is whole or not there.

rows.tsv             one row a vector                 vectors.safetensors   {layer: (N, D)} float32
manifest.json        which encoder, checksums; no times, no absolute paths
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from synapse_diffusion.errors import MissingError, StoreError
from synapse_diffusion.store.files import file_digest, read_table, whole, write_json, write_table
from synapse_diffusion.types import NOT_AVAILABLE, Folder

FORMAT: Final = "synapse-diffusion embedding table"
VERSION: Final = 1
COLUMNS: Final = ("row_id", "image_id", "concept", "person", "split", "k_repeats", "draw", "source")
SOURCES: Final = ("true", "brain", "shuffled", "none", "other_person")
PART: Final = "brain "
"""Begins the name of a part of what the brain says: one modality's, or so many numbers'."""
AGAIN: Final = "delete the folder and make it again"


@dataclass(frozen=True)
class EmbeddingTable:
    """N vectors of each layer, and what each row is of. Raises `ValueError` where the parts do not fit.

    `source` is true (of the image itself), brain (predicted), or a control: shuffled, none, other_person.
    `k_repeats` and `draw` are integers, 0 in rows of images.
    """

    rows: pd.DataFrame
    vectors: dict[str, NDArray[np.float32]]
    encoder: Mapping[str, Any]
    """Which encoder, with which weights (digest) and settings."""
    digest: str = field(default="", compare=False)
    """Of rows, vectors and encoder; empty for a table that was not read from disk."""

    def __post_init__(self) -> None:
        if fault := _fault(self.rows, self.vectors):
            raise ValueError(fault)

    def select(self, image_ids: Sequence[str]) -> EmbeddingTable:
        """The rows of these images, in this order. Raises `StoreError` where one has no row."""
        of_image = self.rows.groupby("image_id", sort=False).indices
        if missing := [name for name in image_ids if name not in of_image]:
            raise StoreError(
                f"{len(missing)} of {len(image_ids)} images have no embedding, e.g. {missing[0]}; add them to "
                "paths.images and run `synapse-diffusion embed` again"
            )
        at = np.concatenate([of_image[name] for name in image_ids]) if len(image_ids) else np.array([], dtype=int)
        return EmbeddingTable(
            self.rows.iloc[at].reset_index(drop=True), {k: v[at] for k, v in self.vectors.items()}, self.encoder
        )


def true_rows(image_ids: Sequence[str], concepts: Sequence[str]) -> pd.DataFrame:
    """Rows of a table of images' own vectors."""
    rows = pd.DataFrame({"row_id": list(image_ids), "image_id": list(image_ids), "concept": list(concepts)})
    return rows.assign(person=NOT_AVAILABLE, split=NOT_AVAILABLE, k_repeats=0, draw=0, source="true")


def write_embeddings(
    table: EmbeddingTable, folder: Folder, tables: Mapping[str, pd.DataFrame] | None = None, key: str = ""
) -> None:
    """Write a table as `folder`, in place of what is there; `tables` (by file name) are kept beside it.

    What lies in the folder's draft (`unfinished`) is gone afterwards. Raises `MissingError` where it cannot be written.
    """
    folder = Path(folder)
    draft = unfinished(folder) / "table"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        _save(table.vectors, draft / "vectors.safetensors")
        for name, content in {"rows.tsv": table.rows[list(COLUMNS)], **(tables or {})}.items():
            write_table(content, draft / name)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "key": key,
            "encoder": dict(table.encoder),
            "rows": len(table.rows),
            "layers": {layer: vectors.shape[1] for layer, vectors in table.vectors.items()},
            "checksums": {path.name: file_digest(path) for path in sorted(draft.iterdir())},
        }
        write_json(manifest, draft / "manifest.json")
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
        shutil.rmtree(draft.parent)
    except (OSError, SafetensorError) as error:  # the latter for a full disk, too
        raise MissingError(f"{folder}: cannot be written: {error}; free some space or set paths.embeddings") from None


def open_embeddings(folder: Folder, layers: Sequence[str] = ()) -> EmbeddingTable:
    """Open and check a table; only `layers` where they are given.

    Raises `StoreError` naming the file that is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    manifest = read_embeddings_manifest(folder)
    for name, expected in manifest["checksums"].items():
        if not (folder / name).is_file():
            raise StoreError(f"{folder / name}: missing; {AGAIN}")
        if file_digest(folder / name) != expected:
            raise StoreError(f"{folder / name}: edited or damaged: its checksum is not the manifest's; {AGAIN}")
    path = folder / "vectors.safetensors"
    try:
        with safe_open(path, "np") as file:
            kept = set(file.keys())
            names = [name for name in manifest["layers"] if name in kept]
            if absent := [name for name in layers if name not in names]:
                raise StoreError(f"{folder}: no layer {absent[0]!r}; it has {', '.join(names)}: see embed.layers")
            vectors = {name: file.get_tensor(name) for name in (layers or names)}
        rows = read_table(folder / "rows.tsv")
        if not set(COLUMNS) - set(rows):
            rows = rows.astype({"k_repeats": int, "draw": int})
    except (OSError, SafetensorError, ValueError) as error:
        raise StoreError(f"{folder}: cannot be read ({error}); {AGAIN}") from None
    if fault := _fault(rows, vectors):
        raise StoreError(f"{folder}: {fault}; {AGAIN}")
    return EmbeddingTable(rows, vectors, manifest["encoder"], digest_of_table(manifest))


def digest_of_table(manifest: Mapping[str, Any]) -> str:
    """Of a table's rows, vectors and encoder, by its manifest."""
    content = json.dumps([manifest["checksums"], manifest["encoder"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def read_embeddings_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a table. Raises `StoreError` where it is missing, no JSON, or of another format."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise StoreError(f"{path}: missing or damaged; give a folder made by `synapse-diffusion embed`") from None
    complete = isinstance(manifest, dict) and {"checksums", "layers", "encoder", "key"} <= set(manifest)
    if not complete or manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise StoreError(f"{path}: not a {FORMAT} of version {VERSION}; {AGAIN}")
    if missing := {"rows.tsv", "vectors.safetensors"} - set(manifest["checksums"]):
        raise StoreError(f"{path}: has no checksum of {min(missing)}; {AGAIN}")
    found: dict[str, Any] = manifest
    return found


def unfinished(folder: Path) -> Path:
    """Where a table is drafted, with finished parts in `parts`."""
    return folder.with_name(f".{folder.name}.unfinished")


class VectorCache:
    """Vectors that are computed already, by key (the digest of an image's file): of parts, and of finished tables."""

    def __init__(self, folder: Path) -> None:
        self.parts = unfinished(folder) / "parts"
        self._at: dict[str, tuple[Path, int]] = {}
        for path in sorted(self.parts.glob("part-*.safetensors")):
            try:
                with safe_open(path, "np") as file:
                    self.add(path, json.loads(file.metadata()["keys"]))
            except (OSError, SafetensorError, ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)  # cut by a power failure: computed again

    def __contains__(self, key: str) -> bool:
        return key in self._at

    def add(self, path: Path, keys: Sequence[str]) -> None:
        """Take rows of this file of vectors as those of `keys`."""
        for row, key in enumerate(keys):
            self._at.setdefault(key, (path, row))

    def write_part(self, keys: Sequence[str], vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep vectors (n, D) of `keys`, so that a killed process need not compute them again."""
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            taken = [int(path.stem.removeprefix("part-")) for path in self.parts.glob("part-*.safetensors")]
            path = self.parts / f"part-{max(taken, default=0) + 1:06d}.safetensors"
            _save(vectors, path, {"keys": json.dumps(list(keys))})
        except (OSError, SafetensorError) as error:
            raise MissingError(
                f"{self.parts}: cannot be written: {error}; free some space or set paths.embeddings"
            ) from None
        self.add(path, keys)

    def read(self, layer: str, keys: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (N, D) of one layer."""
        by_path: dict[Path, list[tuple[int, int]]] = {}
        for at, key in enumerate(keys):
            path, row = self._at[key]
            by_path.setdefault(path, []).append((at, row))
        found: NDArray[np.float32] | None = None
        for path, pairs in by_path.items():
            with safe_open(path, "np") as file:
                part: NDArray[np.float32] = file.get_tensor(layer)
            to, row_of = np.array(pairs).T
            if found is None:
                found = np.empty((len(keys), part.shape[1]), dtype=np.float32)
            found[to] = part[row_of]
        assert found is not None, "no keys"
        return found


def _save(arrays: Mapping[str, NDArray[np.float32]], path: Path, metadata: dict[str, str] | None = None) -> None:
    own = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}
    with whole(path) as part:
        save_file(own, part, metadata)
        part.chmod(0o644)  # safetensors makes files that only their owner can read


def _fault(rows: pd.DataFrame, vectors: Mapping[str, NDArray[np.float32]]) -> str:
    """What is wrong with a table, in one clause; empty: nothing."""
    if missing := [name for name in COLUMNS if name not in rows]:
        return f"rows have no column {', '.join(missing)}"
    if not vectors:
        return "it has no layer"
    if rows["row_id"].duplicated().any():
        return f"row_id {rows['row_id'][rows['row_id'].duplicated()].iloc[0]!r} occurs twice"
    if unknown := {source for source in rows["source"] if source not in SOURCES and not source.startswith(PART)}:
        return f"source {min(unknown)!r} is none of {', '.join(SOURCES)}"
    for layer, vectors_ND in vectors.items():
        if vectors_ND.ndim != 2 or vectors_ND.dtype != np.float32 or len(vectors_ND) != len(rows):
            return f"layer {layer} is {vectors_ND.dtype} {vectors_ND.shape} for {len(rows)} rows"
        if not np.isfinite(vectors_ND).all():
            at = int(np.flatnonzero(~np.isfinite(vectors_ND).all(1))[0])
            return f"layer {layer} of row {rows['row_id'].iloc[at]} is not finite"
    return ""
