"""Decisions as people read them: which gallery, which column is true, and tidy tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.metrics.retrieval import ranks
from synapse_diffusion.training.examples import Asked
from synapse_diffusion.training.setting import Index, Setting

ABOUT = ("trial_id", "person", "session", "run", "image_id", "concept")


def gallery_of(setting: Setting, target_N: Index) -> Index | None:
    """Rows of the target table among which images are found: those asked for; None for other tasks."""
    return np.unique(target_N) if setting.task.kind == "retrieve" else None


def columns(setting: Setting, target_N: Index, gallery_K: Index | None) -> Index:
    """The true column of each decision (for questions: the row of answers)."""
    if gallery_K is None:
        return target_N
    order = np.argsort(gallery_K)
    return np.asarray(order[np.searchsorted(gallery_K, target_N, sorter=order)], dtype=np.int64)


def first_rows(asked: Asked, modality: str) -> Index:
    """The first trial of each mean."""
    pick = asked.picks[modality]
    return np.asarray(pick.rows[np.cumsum(pick.size_N) - pick.size_N], dtype=np.int64)


def decision_table(
    setting: Setting, asked: Asked, gallery_K: Index | None, score_NK: NDArray[np.float64], model: str, fold: int,
    k_repeats: int,
) -> pd.DataFrame:  # fmt: skip
    """One row a decision: its (first) trial, the truth, what was decoded, and how sure that is.

    Classes and questions: a probability of each. Images: the most similar image of the gallery, the true one's rank
    (0: found) and score, and the five most similar. A fusion's rows name the EEG trial, and the MEG one as
    `meg_trial_id`.
    """
    task, names = setting.task, list(asked.picks)
    table = setting.sources.of[names[0]].trials.iloc[first_rows(asked, names[0])][list(ABOUT)].reset_index(drop=True)
    for other in names[1:]:
        trials = setting.sources.of[other].trials.iloc[first_rows(asked, other)]
        table[f"{other}_trial_id"] = trials["trial_id"].to_numpy()
        table[f"{other}_person"] = trials["person"].to_numpy()
    table = table.assign(fold=fold, model=model, k_repeats=k_repeats)
    if task.answers is not None:
        probability = 1 / (1 + np.exp(-score_NK))
        return pd.concat([table, _columns(probability, [f"p({name})" for name in task.names])], axis=1)
    true_N = columns(setting, asked.target_N, gallery_K)
    if gallery_K is None:
        table["label"] = [task.names[k] for k in true_N]
        table["predicted"] = [task.names[k] for k in score_NK.argmax(1)]
        probability = np.exp(score_NK - np.logaddexp.reduce(score_NK, axis=1, keepdims=True))
        return pd.concat([table, _columns(probability, [f"p({name})" for name in task.names])], axis=1)
    assert task.table is not None
    image = task.table.rows["image_id"].to_numpy(dtype=str)[gallery_K]
    table["predicted"] = image[score_NK.argmax(1)]
    table["rank"] = ranks(score_NK, true_N)
    table["score"] = score_NK[np.arange(len(true_N)), true_N].round(6)
    table["gallery"] = len(gallery_K)
    best_N5 = np.argsort(-score_NK, axis=1, kind="stable")[:, :5]
    table["top5"] = ["/".join(names) for names in image[best_N5].tolist()]  # no stem holds a slash
    return table


def _columns(values_NK: NDArray[np.float64], names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(values_NK.round(6), columns=names)
