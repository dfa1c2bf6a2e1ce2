"""How good pictures are: every metric of every source, person and number of repeats, and brain minus no brain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from synapse_diffusion.runs import score_row
from synapse_diffusion.splits import TEST

Array = NDArray[np.float64]
NOT_CLAIMS: Final = ("shuffled", "none", "other_person", "true", "autoencoder", "nearest")
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
    return [gist, *build_columns(Weights(settings.networks, settings.clip, "", settings.darknet), device)]


def score(
    drawn: Sequence[Drawn], seen: Mapping[str, NDArray[np.uint8]], category: Mapping[str, str],
    columns: Sequence[Column | Missing], settings: EvaluateSettings, modality: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of scores.json (task `reconstruct`; model: what pictures are drawn from; control: none for the brain).

    `seen`: pictures by image, at the size of what was drawn. `category` of each image; empty: unknown.
    """
    images = sorted(seen)
    true_features = features(columns, _floats(np.stack([seen[name] for name in images])))
    at = {name: k for k, name in enumerate(images)}
    tables: dict[tuple[str, str, int], dict[str, Array]] = {}
    rows: list[dict[str, Any]] = []
    order: dict[tuple[str, str, int], NDArray[np.str_]] = {}
    for one in drawn:
        key = (one.source, one.person, one.k_repeats)
        mine = np.array([at[name] for name in one.images])
        true = _floats(np.stack([seen[name] for name in one.images]))
        recon = _floats(one.pictures)
        found = features(columns, recon)
        of_true = {name: f[mine] for name, f in true_features.items()}
        tables[key], order[key] = _tables(recon, true, found, of_true, columns), one.images
        about = _about(one.source, one.person, one.k_repeats, modality)
        rows += [score_row(_score(name, t, one.images, settings), **about) for name, t in tables[key].items()]
        colours = colour_score(
            mean_colour(recon), mean_colour(true), np.arange(len(mine)), permutations=settings.permutations,
            bootstrap=settings.bootstrap, rng=np.random.default_rng(settings.seed),
        )  # fmt: skip
        rows.append(score_row(colours, **about))
        rows += _within(found, of_true, one, category, settings, about)
    rows += _over_people(tables, order, settings, modality)
    return rows


def _tables(
    recon: torch.Tensor, true: torch.Tensor, found: Mapping[str, NDArray[np.float32]],
    of_true: Mapping[str, NDArray[np.float32]], columns: Sequence[Column | Missing],
) -> dict[str, Array]:  # fmt: skip
    """Tables (K, K) by metric."""
    tables = {"pixcorr": pixcorr_table(recon, true, None), "two_way pixels": _pixels(recon, true)}
    if min(recon.shape[-2:]) >= 11:
        tables["ssim"] = ssim_table(recon, true, None)
    for column in columns:
        if not isinstance(column, Column):
            continue
        a, b = found[column.name], of_true[column.name]
        if column.use in LOWER:
            tables[f"{column.use} {column.name}"] = LOWER[column.use](a, b)
        elif column.use == "n_way":
            n = min(N_WAY[0], b.shape[1])
            tables[f"{n}_way_top{N_WAY[1]} {column.name}"] = n_way_table(a, classes_of(b), n, N_WAY[1])
        else:
            tables[f"two_way {column.name}"] = two_way_table(a, b)
            tables[f"top1 {column.name}"] = top_table(a, b)
    return tables


def _pixels(recon: torch.Tensor, true: torch.Tensor) -> Array:
    """Two-way identification by the pixels themselves."""
    return two_way_table(recon.flatten(2).numpy(), true.flatten(1).numpy())


def _score(name: str, table_KK: Array, unit_K: NDArray[Any], settings: EvaluateSettings, **more: Any) -> Score:
    return table_score(
        name, table_KK, unit_K, lower_is_better=name.split()[0] in LOWER, permutations=settings.permutations,
        bootstrap=settings.bootstrap, rng=np.random.default_rng(settings.seed), **more,
    )  # fmt: skip


def _within(
    found: Mapping[str, NDArray[np.float32]], of_true: Mapping[str, NDArray[np.float32]], one: Drawn,
    category: Mapping[str, str], settings: EvaluateSettings, about: Mapping[str, Any],
) -> list[dict[str, Any]]:  # fmt: skip
    """Two-way identification among pictures of one category, by GIST."""
    group_K = np.array([category.get(name, "") for name in one.images])
    if "" in group_K or len(set(group_K)) in (1, len(group_K)):
        return []
    table, kept_K = two_way_within(found[GIST], of_true[GIST], group_K)
    score = _score(f"two_way_within_category {GIST}", table, one.images[kept_K], settings, exchange_K=group_K[kept_K])
    return [score_row(score, **about)]


def _over_people(
    tables: Mapping[tuple[str, str, int], Mapping[str, Array]], order: Mapping[tuple[str, str, int], NDArray[np.str_]],
    settings: EvaluateSettings, modality: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Means over people who have seen the same images; then what is more than without a brain (the headline), than
    with another picture's signal, than the nearest training pictures, and than with less of the brain."""
    rows: list[dict[str, Any]] = []
    means = {(s, k): (tables[s, p, k], order[s, p, k]) for s, p, k in tables if p == "all"}
    for source, k in dict.fromkeys((s, k) for s, p, k in tables if p != "all"):
        keys = [key for key in tables if key[0] == source and key[2] == k]
        images = order[keys[0]]
        if any(not np.array_equal(order[key], images) for key in keys):
            continue
        mean = {name: np.mean([tables[key][name] for key in keys], axis=0) for name in tables[keys[0]]}
        means[source, k] = mean, images
        about = _about(source, "all", k, modality) | {"n_people": len(keys)}
        rows += [score_row(_score(name, table, images, settings), **about) for name, table in mean.items()]
    for k in [k for source, k in means if source == "brain"]:
        own, images = means["brain", k]
        about = _about("brain", "all", k, modality)
        less = [source for source, of_k in means if source.startswith("brain ") and of_k == k]
        for other in (("none", 0), *((name, k) for name in ("shuffled", "nearest", *less))):
            if other in means and np.array_equal(means[other][1], images):
                base, name = means[other][0], f"brain - {other[0]}"
                rows += [_beyond(n, t, base[n], images, settings, {**about, "model": name}) for n, t in own.items()]
    return rows


def _beyond(
    name: str, brain_KK: Array, none_KK: Array, unit_K: NDArray[Any], settings: EvaluateSettings,
    about: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Brain minus a control, image by image; positive is better."""
    sign = -1.0 if name.split()[0] in LOWER else 1.0
    rng = np.random.default_rng(settings.seed)
    own = [sign * np.diagonal(table) for table in (brain_KK, none_KK)]
    value, low, high = paired_difference(own[0], own[1], unit_K, settings.bootstrap, rng)
    score = Score(name, value, 0.0, low, high, float("nan"), len(unit_K))
    return score_row(score, **about)


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
