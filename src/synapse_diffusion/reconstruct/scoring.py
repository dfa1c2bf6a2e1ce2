"""How good pictures are: every metric of every source, person and number of repeats, and brain minus no brain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.config import EmbedSettings, EvaluateSettings, ReconstructSettings
from synapse_diffusion.encoders import build_encoder
from synapse_diffusion.encoders.features import Column, Missing, Weights, build_columns, features
from synapse_diffusion.metrics import (
    Score,
    classes_of,
    colour_score,
    distance_table,
    n_way_table,
    paired_difference,
    squared_table,
    table_score,
    top_table,
    two_way_table,
    two_way_within,
)
from synapse_diffusion.metrics.pictures import mean_colour, pixcorr_table, ssim_table
from synapse_diffusion.reconstruct.tables import BRAIN
from synapse_diffusion.runs import score_row, with_holm
from synapse_diffusion.splits import TEST

Array = NDArray[np.float64]
Key = tuple[str, str, int]
"""Source, person and number of repeats."""
NOT_CLAIMS: Final = ("shuffled", "none", "other_person", "true", "autoencoder", "nearest")
PLAIN: Final = ("pixcorr", "ssim")  # whose values depend on the pictures' size
N_WAY: Final = (50, 1)  # Chen et al. 2023
LOWER: Final = {"correlation_distance": distance_table, "squared_distance": squared_table}
GIST: Final = "gist"


@dataclass(frozen=True)
class Drawn:
    """Pictures (K, S, 3, H, W) in bytes of one source, person and repeats, and the images (K,) of them."""

    source: str
    person: str
    k_repeats: int
    images: NDArray[np.str_]
    pictures: NDArray[np.uint8]


def columns_of(settings: ReconstructSettings, device: torch.device) -> list[Column | Missing]:
    """GIST, always; the published networks and Tiny Darknet where their weights are, each else with the reason."""
    gist = Column(GIST, "two_way", build_encoder(EmbedSettings(encoder="gist", layers=("gist",)), device), "gist")
    return [
        gist,
        *build_columns(Weights(settings.networks, settings.clip, settings.dreamsim, settings.darknet), device),
    ]


@dataclass(frozen=True)
class Table:
    """A metric (K, K) of what was drawn of each image against each image; of which, and within what they are dealt."""

    values_KK: Array
    images_K: NDArray[Any]
    category_K: NDArray[np.str_] | None = None


Tables = dict[str, Table]
"""By metric."""


def score(
    drawn: Sequence[Drawn], seen: Mapping[str, NDArray[np.uint8]], category: Mapping[str, str],
    columns: Sequence[Column | Missing], settings: EvaluateSettings, modality: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of scores.json (task `reconstruct`; model: what pictures are drawn from; control: none for the brain).

    `seen`: pictures by image, at the size of what was drawn. `category` of images, where it is known.
    """
    images = sorted(seen)
    true = _floats(np.stack([seen[name] for name in images]))
    true_features, true_colours = features(columns, true), mean_colour(true)
    at = {name: k for k, name in enumerate(images)}
    tables: dict[Key, Tables] = {}
    colours: dict[Key, tuple[Array, Array]] = {}
    rows: list[dict[str, Any]] = []
    for one in drawn:
        key = (one.source, one.person, one.k_repeats)
        mine = np.array([at[name] for name in one.images])
        recon = _floats(one.pictures)
        of_true = {name: f[mine] for name, f in true_features.items()}
        category_K = np.array([category.get(name, f"? {name}") for name in one.images])
        tables[key] = _tables(one, recon, true[mine], features(columns, recon), of_true, columns, category_K)
        colours[key] = mean_colour(recon), true_colours[mine]
        about = _about(*key, modality)
        size = f"of pictures of {recon.shape[-2]} x {recon.shape[-1]}"
        rows += [
            score_row(_score(name, table, settings), **about, note=size if name in PLAIN else None)
            for name, table in tables[key].items()
        ]
        rows.append(score_row(_colour(*colours[key], settings), **about))
    return with_holm(rows + _over_people(tables, colours, settings, modality))


def _tables(
    one: Drawn, recon: torch.Tensor, true: torch.Tensor, found: Mapping[str, NDArray[np.float32]],
    of_true: Mapping[str, NDArray[np.float32]], columns: Sequence[Column | Missing], category_K: NDArray[np.str_],
) -> Tables:  # fmt: skip
    """All metrics that are means over pictures."""
    pixels = {"pixels": (recon.flatten(2).numpy(), true.flatten(1).numpy())}
    two_way = pixels | {
        c.name: (found[c.name], of_true[c.name])
        for c in columns
        if isinstance(c, Column) and c.use not in (*LOWER, "n_way")
    }
    tables = {"pixcorr": pixcorr_table(recon, true, None)}
    if min(recon.shape[-2:]) >= 11:
        tables["ssim"] = ssim_table(recon, true, None)
    tables |= {f"two_way {name}": two_way_table(*pair) for name, pair in two_way.items()}
    tables |= {f"top1 {name}": top_table(*pair) for name, pair in two_way.items() if name != "pixels"}
    for column in columns:
        if isinstance(column, Column) and column.name not in two_way:
            a, b = found[column.name], of_true[column.name]
            if column.use in LOWER:
                tables[f"{column.use} {column.name}"] = LOWER[column.use](a, b)
            else:
                n = min(N_WAY[0], b.shape[1])
                tables[f"{n}_way_top{N_WAY[1]} {column.name}"] = n_way_table(a, classes_of(b), n, N_WAY[1])
    found_tables = {name: Table(table, one.images) for name, table in tables.items()}
    if len(set(category_K)) in (1, len(category_K)):
        return found_tables
    for name, pair in two_way.items():
        table, kept_K = two_way_within(*pair, category_K)
        found_tables[f"two_way_within_category {name}"] = Table(table, one.images[kept_K], category_K[kept_K])
    return found_tables


def _score(name: str, table: Table, settings: EvaluateSettings) -> Score:
    return table_score(
        name, table.values_KK, table.images_K, exchange_K=table.category_K, lower_is_better=name.split()[0] in LOWER,
        permutations=settings.permutations, bootstrap=settings.bootstrap, rng=np.random.default_rng(settings.seed),
    )  # fmt: skip


def _colour(recon: Array, true_K3: Array, settings: EvaluateSettings) -> Score:
    return colour_score(
        recon, true_K3, np.arange(len(true_K3)), permutations=settings.permutations, bootstrap=settings.bootstrap,
        rng=np.random.default_rng(settings.seed),
    )  # fmt: skip


def _over_people(
    tables: Mapping[Key, Tables], colours: Mapping[Key, tuple[Array, Array]], settings: EvaluateSettings, modality: str
) -> list[dict[str, Any]]:
    """Means over people, of the images that all have seen; then what is more than without a brain (the headline), than
    with another picture's signal, than the nearest training pictures, and than with less of the brain. Where people
    have no two images in common, each person's by themselves."""
    rows: list[dict[str, Any]] = []
    means = {(s, k): tables[s, p, k] for s, p, k in tables if p == "all"}
    for source, k in dict.fromkeys((s, k) for s, p, k in tables if p != "all"):
        keys = [key for key in tables if key[0] == source and key[2] == k]
        mean = _mean([tables[key] for key in keys])
        if not mean:
            continue
        means[source, k] = mean
        about = _about(source, "all", k, modality) | {"n_people": len(keys)}
        rows += [score_row(_score(name, table, settings), **about) for name, table in mean.items()]
        kept = [np.isin(tables[key]["pixcorr"].images_K, mean["pixcorr"].images_K) for key in keys]
        # dealt to the pictures all alike
        joined_KS3 = np.concatenate([colours[key][0][at] for key, at in zip(keys, kept, strict=True)], axis=1)
        rows.append(score_row(_colour(joined_KS3, colours[keys[0]][1][kept[0]], settings), **about))
    apart = not any(source == BRAIN for source, _ in means)
    for person in sorted({p for _, p, _ in tables if p != "all"}) if apart else ["all"]:
        own = {(s, k): table for (s, p, k), table in tables.items() if p == person} if apart else {}
        rows += _differences({**means, **own}, person, settings, modality)
    return rows


def _differences(
    of: Mapping[tuple[str, int], Tables], person: str, settings: EvaluateSettings, modality: str
) -> list[dict[str, Any]]:
    """What the brain adds to each control (source, k), of the images that both have."""
    rows: list[dict[str, Any]] = []
    for k in [k for source, k in of if source == BRAIN]:
        about = _about(BRAIN, person, k, modality)
        less = [source for source, of_k in of if source.startswith(f"{BRAIN} ") and of_k == k]
        for other in (("none", 0), *((name, k) for name in ("shuffled", "nearest", *less))):
            about["model"] = f"{BRAIN} - {other[0]}"
            for name, table in of[BRAIN, k].items():
                pair = _shared([table, of[other][name]]) if name in of.get(other, {}) else []
                if pair:
                    rows.append(score_row(_beyond(name, pair[0], pair[1], settings), **about))
    return rows


def _mean(tables: Sequence[Tables]) -> Tables:
    """Of the images that all tables have; nothing of metrics that have fewer than two in common."""
    found = {}
    for name in tables[0]:
        parts = _shared([of[name] for of in tables]) if all(name in of for of in tables) else []
        if parts:
            found[name] = replace(parts[0], values_KK=np.mean([part.values_KK for part in parts], axis=0))
    return found


def _shared(tables: Sequence[Table]) -> list[Table]:
    """The tables' images that all of them have, in order; none, where these are fewer than two."""
    common = set.intersection(*(set(table.images_K.tolist()) for table in tables))
    if len(common) < 2:
        return []
    found = []
    for table in tables:
        at = np.flatnonzero(np.isin(table.images_K, list(common)))
        category_K = None if table.category_K is None else table.category_K[at]
        found.append(Table(table.values_KK[np.ix_(at, at)], table.images_K[at], category_K))
    return found


def _beyond(name: str, brain: Table, control: Table, settings: EvaluateSettings) -> Score:
    """Brain minus a control, image by image; positive is better."""
    sign = -1.0 if name.split()[0] in LOWER else 1.0
    rng = np.random.default_rng(settings.seed)
    own, other = (sign * np.diagonal(table.values_KK) for table in (brain, control))
    value, low, high = paired_difference(own, other, brain.images_K, settings.bootstrap, rng)
    return Score(name, value, 0.0, low, high, float("nan"), len(brain.images_K))


def _about(source: str, person: str, k_repeats: int, modality: str) -> dict[str, Any]:
    control = source if source in NOT_CLAIMS else "none"
    if source == "none":
        control = "no_brain"
    return {
        "task": "reconstruct", "split": TEST, "modality": modality, "person": person, "model": source,
        "k_repeats": k_repeats, "control": control,
    }  # fmt: skip


def _floats(pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pictures).float() / 255
