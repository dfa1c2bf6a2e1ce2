"""The concept table: which of the categories each concept belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.errors import DataError

CONCEPTS_FILE: Final = "things_concepts.tsv"
CATEGORIES_FILE: Final = "category_mat_manual.tsv"
IMAGES_FILE: Final = "things_images.csv"


@dataclass(frozen=True)
class ConceptTable:
    """Concepts (rows) by categories (columns), nested and overlapping as in THINGS."""

    concepts: tuple[str, ...]
    categories: tuple[str, ...]
    member: NDArray[np.bool_]

    def columns(self, names: tuple[str, ...]) -> NDArray[np.bool_]:
        """Membership (concepts, len(names)). Raises `DataError` naming an unknown category."""
        for name in names:
            if name not in self.categories:
                raise DataError(f"labels.classes: no category {name!r}; there are {', '.join(self.categories)}")
        return self.member[:, [self.categories.index(name) for name in names]]


def rarest(member_NK: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of the columns that a row belongs to the one of fewest rows (N,), of equal ones the first; K for none."""
    n_rows, n_columns = member_NK.shape
    first_N = np.where(member_NK, member_NK.sum(0), n_rows + 1).argmin(1)
    return np.asarray(np.where(member_NK.any(1), first_N, n_columns), dtype=np.int64)


@dataclass(frozen=True)
class ImageTable:
    """Images in THINGS' numbering: image number n is row n - 1; likewise the 1-based concept numbers."""

    path: Path
    images: tuple[str, ...]
    concepts: tuple[str, ...]
    concept_number: NDArray[np.int64]


def read_images(folder: Path) -> ImageTable:
    """THINGS' image list (26,107 rows there; columns image_nr, file_name, uniqueID, concept_nr).

    The numbers run in the order of concepts, then file names; a plain sort of file names gives other numbers for 21
    concepts. Raises `DataError` where the file is missing or its numbers are not 1, 2, 3...
    """
    path = folder / IMAGES_FILE
    if not path.is_file():
        raise DataError(
            f"{path}: not there; set paths.things to the folder with THINGS' image list ({IMAGES_FILE}: image_nr, "
            "file_name, uniqueID, concept_nr)"
        )
    try:
        table = pd.read_csv(path, dtype={"file_name": str, "uniqueID": str})
        number = table["image_nr"].to_numpy(dtype=np.int64)
        concept_number = table["concept_nr"].to_numpy(dtype=np.int64)
        stems = tuple(table["file_name"].str.rsplit(".", n=1).str[0])
        concepts = tuple(table["uniqueID"])
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as an image list: {str(error).splitlines()[0]}") from None
    if table[["file_name", "uniqueID"]].isna().to_numpy().any():
        raise DataError(f"{path}: a row without file_name or uniqueID; fetch the list again")
    if not np.array_equal(number, np.arange(1, len(table) + 1)):
        row = int(np.flatnonzero(number != np.arange(1, len(table) + 1))[0])
        raise DataError(f"{path}: row {row + 1}: image_nr is {number[row]} where {row + 1} comes next")
    return ImageTable(path, stems, concepts, concept_number)


def read_concepts(folder: Path) -> ConceptTable:
    """THINGS' concept list and manual category matrix (1,854 x 27 there), rows in the same order.

    Raises `DataError` where a file is missing or the two differ in length.
    """
    for name in (CONCEPTS_FILE, CATEGORIES_FILE):
        if not (folder / name).exists():
            raise DataError(
                f"{folder / name}: not there; set paths.things to the folder with THINGS' "
                f"{CONCEPTS_FILE} and {CATEGORIES_FILE}"
            )
    try:
        concepts = pd.read_csv(folder / CONCEPTS_FILE, sep="\t", usecols=["uniqueID"], dtype=str)["uniqueID"]
        matrix = pd.read_csv(folder / CATEGORIES_FILE, sep="\t")
    except ValueError as error:
        raise DataError(f"{folder}: concept tables cannot be read: {str(error).splitlines()[0]}") from None
    if len(concepts) != len(matrix):
        raise DataError(f"{folder}: {CONCEPTS_FILE} has {len(concepts)} rows, {CATEGORIES_FILE} {len(matrix)}")
    return ConceptTable(tuple(concepts), tuple(matrix.columns), matrix.to_numpy() == 1)
