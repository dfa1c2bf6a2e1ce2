"""Which sensors and latencies a decoder lives on: what it loses where they are blanked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from synapse_diffusion.evaluate.asking import questions
from synapse_diffusion.figures import draw_occlusion
from synapse_diffusion.models.fusion import FUSED
from synapse_diffusion.splits import VALIDATION
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.decoding import batch_of
from synapse_diffusion.training.examples import Batch, chunks, read
from synapse_diffusion.training.learner import Learner
from synapse_diffusion.training.trained import Trained
from synapse_diffusion.types import Progress

WINDOW_S: Final = 0.1
MOST_PATCHES: Final = 32
SHARE: Final = 0.1  # of the sensors in a patch: neighbours tell much the same, so that one alone is hardly missed
FEWEST: Final = 3
MOST_TRIALS: Final = 256


def occlude(trained: Trained, progress: Progress) -> None:
    """Rise of the validation loss where scaled signals are zero, into maps.tsv and figures/maps_MODALITY.png.

    Occlusion (Zeiler & Fergus 2014) of overlapping patches of neighbouring sensors, and of all sensors, for 0.1 s each;
    a sensor's value is the mean over its patches. Of the first fold's first network (of a fusion the fused one, which
    keeps the other modality), on validation trials: no test trial is read.
    """
    setting, tables = trained.setting, []
    rows = trained.rows(0, VALIDATION)
    targets = {name: setting.task.of[name].target_N[r] for name, r in rows.items()}
    asked = next(questions(setting, rows, targets)).asked
    rng = np.random.default_rng(setting.recipe.evaluate.seed)
    asked = asked.only(rng.permutation(len(asked)) < MOST_TRIALS)
    models = trained.models(0, final=False)
    model = FUSED if setting.sources.is_fusion else setting.recipe.model.name
    learner = models.networks[model][0]
    batches = [batch_of(read(asked.part(at), models.data), learner.network.modalities) for at in chunks(len(asked))]
    before = _loss(learner, batches, None)
    for modality in learner.network.modalities:
        epochs = setting.sources.of[modality].epochs
        position_C3 = setting.shapes[modality].position_tensor().double().numpy()
        patches, windows = _patches(position_C3), _windows(epochs.n_times, epochs.sfreq)
        rise_PW = np.empty((len(patches) + 1, len(windows)))
        for p, patch in enumerate([*patches, np.arange(len(position_C3))]):
            progress(f"{modality}: blanking sensors", p, len(patches) + 1)
            rise_PW[p] = [_loss(learner, batches, (modality, patch, window)) - before for window in windows]
        holds_PC = np.array([np.isin(np.arange(len(position_C3)), patch) for patch in patches], dtype=float)
        rise_CW = holds_PC.T @ rise_PW[:-1] / holds_PC.sum(0)[:, None]
        times_s = [(epochs.times[w.start], epochs.times[w.stop - 1] + 1 / epochs.sfreq) for w in windows]
        title = (
            f"{setting.recipe.data.name}, {modality}: {model}, {len(asked)} validation trials; loss {before:.3f} nats, "
            "rise where 0.1 s is blanked"
        )
        draw_occlusion(
            times_s, rise_PW[-1], rise_CW, position_C3, title, trained.run.folder / f"figures/maps_{modality}.png"
        )
        for name, values_W in [*zip(epochs.channels, rise_CW, strict=True), ("all", rise_PW[-1])]:
            tables.append(pd.DataFrame({
                "modality": modality, "sensor": name, "start_s": [t for t, _ in times_s],
                "stop_s": [t for _, t in times_s], "loss_rise": values_W,
            }))  # fmt: skip
    write_table(pd.concat(tables, ignore_index=True).round(6), trained.run.folder / "maps.tsv")


@torch.no_grad()
def _loss(learner: Learner, batches: Sequence[Batch], blank: tuple[str, NDArray[np.int64], slice] | None) -> float:
    """Validation loss, with some sensors zero for some time."""
    out, targets = [], []
    for batch in batches:
        signals = dict(batch.signals)
        if blank is not None:
            modality, patch, window = blank
            signals[modality] = signals[modality].clone()
            signals[modality][:, torch.from_numpy(patch), window] = 0.0
        out.append(learner(Batch(signals, batch.people, batch.present, batch.target_B), None))
        targets.append(batch.target_B)
    return learner.objective.judge(torch.cat(out), torch.cat(targets)).loss


def _patches(position_C3: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Overlapping patches of neighbours that hold every sensor; each sensor alone where positions are unknown."""
    n = len(position_C3)
    if not np.isfinite(position_C3).all():
        return [np.array([c]) for c in range(n)]
    distance_CC = np.linalg.norm(position_C3[:, None] - position_C3, axis=2)
    seeds, nearest_C = [0], distance_CC[0]
    while len(seeds) < min(n, MOST_PATCHES):  # the sensor farthest from all seeds so far
        seeds.append(int(nearest_C.argmax()))
        nearest_C = np.minimum(nearest_C, distance_CC[seeds[-1]])
    size = min(n, max(FEWEST, round(SHARE * n)))
    patches = [np.argsort(distance_CC[seed], kind="stable")[:size] for seed in seeds]
    own_C = distance_CC[seeds].argmin(0)
    return [np.union1d(patch, np.flatnonzero(own_C == p)) for p, patch in enumerate(patches)]


def _windows(n_times: int, sfreq: float) -> list[slice]:
    """Stretches of 0.1 s, the last one up to twice as long."""
    n = max(1, int(n_times / (WINDOW_S * sfreq)))
    ends = [round(k * WINDOW_S * sfreq) for k in range(n)] + [n_times]
    return [slice(a, b) for a, b in pairwise(ends)]
