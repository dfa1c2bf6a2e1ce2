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
