"""Batches of training steps, each a function of the step alone, prepared while the steps before are computed."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.config import TrainSettings
from synapse_diffusion.errors import SettingsError
from synapse_diffusion.parallel import Ahead, Group
from synapse_diffusion.training.data import ScaledEpochs
from synapse_diffusion.training.examples import Asked, Batch, Examples, read

AHEAD: Final = 3  # batches
READERS: Final = 2  # threads: whitening 271 sensors takes longer than a small decoder's step
EVEN: Final = 8  # processes that can share a batch of the default size
PASSES, FEWEST_STEPS = 20, 800  # where settings leave the steps open
ORDER, DRAW, NOISE = 7, 8, 9  # streams of random numbers


@dataclass
class Feed:
    """Batches of the steps from `start` on. Which trials, shifts and noise: the whole batch's, whatever the group."""

    data: Mapping[str, ScaledEpochs]
    examples: Examples
    settings: TrainSettings
    batch: int
    key: tuple[int, ...]
    group: Group
    waited_s: float = 0.0
    """How long steps have waited for their batch."""

    def __post_init__(self) -> None:
        self._per_pass = max(1, len(self.examples) // self.batch)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def make(self, step: int) -> Batch:
        """This process's share of a step's batch."""
        rng = np.random.default_rng([*self.key, DRAW, step])
        items = self._items(step)
        asked = self.examples.draw(items, rng, self.settings.repeats, self.settings.repeat_weights)
        there = {name: pick.size_N > 0 for name, pick in asked.picks.items()}
        present = self._modalities(np.logical_and.reduce(list(there.values())), rng)
        share = self.group.share(len(items))
        shift = {name: self._shift(asked, name, share, rng) for name in asked.picks}
        moved = None if all(s is None for s in shift.values()) else {n: s for n, s in shift.items() if s is not None}
        batch = read(asked.part(share), self.data, moved)
        signals = {name: self._augmented(x, step, k, share) for k, (name, x) in enumerate(batch.signals.items())}
        device = batch.target_B.device
        target_B = torch.from_numpy(asked.target_N).to(device)
        kept = {
            name: p * torch.from_numpy(present[name][share]).to(device, p.dtype) for name, p in batch.present.items()
        }
        recorded = {name: torch.from_numpy(np.flatnonzero(of)) for name, of in there.items() if not of.all()}
        return Batch(signals, batch.people, kept, target_B, recorded)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches of these steps, from threads of their own."""
        device = Ahead(next(iter(self.data.values())).epochs.device)
        with ThreadPoolExecutor(READERS) as pool:

            def submit(step: int) -> Future[tuple[Batch, torch.cuda.Event | None]]:
                return pool.submit(device.work, self.make, step)

            ahead = deque(submit(step) for step in range(start, min(start + AHEAD, stop)))
            try:
                for step in range(start + AHEAD, stop + AHEAD):
                    began = time.perf_counter()
                    batch, ready = ahead.popleft().result()
                    self.waited_s += time.perf_counter() - began
                    device.take(batch.tensors(), ready)
                    if step < stop:
                        ahead.append(submit(step))
                    yield batch
            finally:
                pool.shutdown(cancel_futures=True)

    def _items(self, step: int) -> NDArray[np.int64]:
        """Items of a step: all of them in a new random order each pass."""
        number, k = divmod(step, self._per_pass)
        known, order = self._order  # taken at once: other threads may be in another pass
        if known != number:
            order = np.random.default_rng([*self.key, ORDER, number]).permutation(len(self.examples))
            self._order = (number, order)
        return order[k * self.batch : (k + 1) * self.batch]

    def _modalities(self, all_N: NDArray[np.bool_], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
        """Which modalities each trial's fused output has: sometimes one is left out, where `all_N` are there."""
        names, n = list(self.examples.trials), len(all_N)
        out = {name: np.ones(n) for name in names}
        if len(names) > 1 and self.settings.modality_dropout:
            lacking = rng.random(n) < self.settings.modality_dropout
            which = rng.integers(0, len(names), n)
            for k, name in enumerate(names):
                out[name][lacking & all_N & (which == k)] = 0.0
        return out

    def _shift(self, asked: Asked, name: str, share: slice, rng: np.random.Generator) -> NDArray[np.int64] | None:
        largest = round(self.settings.time_shift_s * self.data[name].epochs.sfreq)
        if not largest:
            return None
        pick = asked.picks[name]
        ends = np.concatenate([[0], np.cumsum(pick.size_N)])
        every = rng.integers(-largest, largest + 1, len(pick.rows))
        return every[ends[share.start] : ends[share.stop]]

    def _augmented(self, x_BCT: torch.Tensor, step: int, stream: int, share: slice) -> torch.Tensor:
        settings, n = self.settings, self.batch
        if not (settings.noise or settings.channel_dropout):
            return x_BCT
        seed = np.random.SeedSequence([*self.key, NOISE, step, stream]).generate_state(1)[0]
        generator = torch.Generator(x_BCT.device).manual_seed(int(seed))
        if settings.noise:
            noise = torch.randn(n, *x_BCT.shape[1:], generator=generator, device=x_BCT.device)
            x_BCT = x_BCT + settings.noise * noise[share]
        if settings.channel_dropout:
            drawn = torch.rand(n, x_BCT.shape[1], 1, generator=generator, device=x_BCT.device)
            x_BCT = x_BCT * (drawn[share] >= settings.channel_dropout)
        return x_BCT


def n_steps(settings: TrainSettings, n_trials: int, group: Group) -> int:
    """Steps of a fit on that many training trials."""
    if settings.steps or not n_trials:
        return settings.steps or FEWEST_STEPS
    return max(FEWEST_STEPS, math.ceil(PASSES * n_trials / batch_size(settings, n_trials, group)))


def batch_size(settings: TrainSettings, n_items: int, group: Group) -> int:
    """Items a step. Raises `SettingsError` where the processes cannot share them equally."""
    wanted = settings.batch or min(256, max(64, 2 ** int(np.log2(max(1, n_items / 32)))))
    size = min(wanted, n_items)
    if not settings.batch and size > EVEN:
        size -= size % EVEN
    if size % group.size:
        raise SettingsError(
            f"a batch of {size} cannot be shared equally by {group.size} processes; change train.batch or "
            "execution.processes"
        )
    return size
