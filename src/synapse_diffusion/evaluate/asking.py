"""What is asked of a part's trials: single ones, and means over repeats of one image and person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from synapse_diffusion.training.examples import Asked, Pick
from synapse_diffusion.training.setting import Index, Setting
from synapse_diffusion.types import NOT_AVAILABLE


@dataclass(frozen=True)
class Question:
    """Decisions, and over how many repeats each mean goes (each modality's, of a fusion)."""

    asked: Asked
    k_repeats: int


def questions(setting: Setting, rows: Mapping[str, Index], targets: Mapping[str, Index]) -> Iterator[Question]:
    """Single trials, then means over k repeats by setting (0: all). Of a fusion pairs of them, no trial twice."""
    recipe = setting.recipe
    tables = {name: setting.sources.of[name].trials.iloc[r].assign(row=r) for name, r in rows.items()}
    most = most_repeats(setting, rows)
    for k in dict.fromkeys([1, *(most if k == 0 else k for k in recipe.evaluate.k_repeats)]):
        if not 1 <= k <= most:
            continue
        rng = np.random.default_rng(recipe.evaluate.seed)
        groups = {name: _groups(table, k, rng) for name, table in tables.items()}
        if setting.sources.is_fusion:
            groups = _pairs(setting, groups, rng)
        target_of = {name: dict(zip(r, targets[name], strict=True)) for name, r in rows.items()}
        first = next(iter(groups))
        target_N = np.array([target_of[first][group[0]] for group in groups[first]], dtype=np.int64)
        yield Question(Asked({name: pick_of(setting, name, found) for name, found in groups.items()}, target_N), k)


def pick_of(setting: Setting, modality: str, groups: Sequence[Index]) -> Pick:
    """Means over groups of rows."""
    person_index = setting.sources.of[modality].person_index
    sizes = np.array([len(group) for group in groups], dtype=np.int64)
    people = np.array([person_index[group[0]] for group in groups], dtype=np.int64)
    return Pick(np.concatenate(groups) if len(groups) else np.empty(0, np.int64), sizes, people)


def most_repeats(setting: Setting, rows: Mapping[str, Index]) -> int:
    """The largest number of repeats of an image for one person; of a fusion, of the modality that has fewer."""
    tables = [setting.sources.of[name].trials.iloc[r] for name, r in rows.items()]
    shown = [table[table["image_id"] != NOT_AVAILABLE] for table in tables]
    return min(int(t.groupby(["person", "image_id"]).size().max()) if len(t) else 1 for t in shown)


def _groups(table: pd.DataFrame, k: int, rng: np.random.Generator) -> list[Index]:
    """Rows whose mean is one decision: single ones in order, or k of one image and person dealt at random."""
    if k == 1:
        return [np.array([row]) for row in table["row"]]
    found = []
    shown = table[table["image_id"] != NOT_AVAILABLE]
    for _, group in shown.groupby(["person", "image_id"], sort=True):
        dealt = rng.permutation(group["row"].to_numpy())
        size = min(k, len(dealt))
        found += [np.sort(dealt[i : i + size]) for i in range(0, len(dealt) - size + 1, size)]
    return found


def _pairs(setting: Setting, groups: Mapping[str, Sequence[Index]], rng: np.random.Generator) -> dict[str, list[Index]]:
    """Groups of two modalities that belong to one pair (image, or concept), dealt to each other at random."""
    by_pair = {}
    for name, found in groups.items():
        of: dict[int, list[Index]] = {}
        for group in found:
            of.setdefault(int(setting.sources.of[name].pair_N[group[0]]), []).append(group)
        by_pair[name] = of
    chosen: dict[str, list[Index]] = {name: [] for name in groups}
    for pair in sorted(set.intersection(*(set(of) for of in by_pair.values()))):
        n = min(len(of[pair]) for of in by_pair.values())
        for name, of in by_pair.items():
            chosen[name] += [of[pair][j] for j in rng.permutation(len(of[pair]))[:n]]
    return chosen


def two_people(
    setting: Setting, modality: str, rows: Index, k: int, rng: np.random.Generator
) -> tuple[list[Index], list[Index]]:
    """Pairs of (means over k of) trials of one image by two people, no trial twice; empty where one person is there."""
    table = setting.sources.of[modality].trials.iloc[rows].assign(row=rows)
    person = dict(zip(rows, table["person"], strict=True))
    image = dict(zip(rows, table["image_id"], strict=True))
    by_image: dict[str, dict[str, list[Index]]] = {}
    for group in _groups(table, k, rng):
        by_image.setdefault(str(image[group[0]]), {}).setdefault(str(person[group[0]]), []).append(group)
    first: list[Index] = []
    second: list[Index] = []
    for name in sorted(by_image):
        people = [list(by_image[name][p]) for p in sorted(by_image[name])]
        people = [people[j] for j in rng.permutation(len(people))]
        while sum(bool(groups) for groups in people) > 1:
            people.sort(key=len, reverse=True)
            first.append(people[0].pop())
            second.append(people[1].pop())
    return first, second
