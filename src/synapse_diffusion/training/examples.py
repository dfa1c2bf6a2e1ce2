"""What is decoded: trials by modality, the items (images, or trials) that they show, and batches of signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.training.data import ScaledEpochs

CHUNK: Final = 256


@dataclass(frozen=True)
class Pick:
    """N means over trials of one modality: rows of its epochs end to end, how many each has (0: none), whose."""

    rows: NDArray[np.int64]
    size_N: NDArray[np.int64]
    person_N: NDArray[np.int64]
    weight: NDArray[np.float32] | None = None
    """What each row counts for, adding up to one in each mean; None: the same."""

    def part(self, at: slice) -> Pick:
        """Some of the means."""
        ends = np.concatenate([[0], np.cumsum(self.size_N)])
        start, stop, _ = at.indices(len(self.size_N))
        rows = slice(ends[start], ends[stop])
        weight = None if self.weight is None else self.weight[rows]
        return Pick(self.rows[rows], self.size_N[at], self.person_N[at], weight)

    def only(self, at: NDArray[np.bool_]) -> Pick:
        """Those of the means."""
        rows = np.repeat(at, self.size_N)
        weight = None if self.weight is None else self.weight[rows]
        return Pick(self.rows[rows], self.size_N[at], self.person_N[at], weight)


@dataclass(frozen=True)
class Asked:
    """N decisions: what is shown of each modality, and the target (class, question row or image) of each."""

    picks: Mapping[str, Pick]
    target_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.target_N)

    def part(self, at: slice) -> Asked:
        """Some of the decisions."""
        return Asked({name: pick.part(at) for name, pick in self.picks.items()}, self.target_N[at])

    def of(self, modality: str) -> Asked:
        """The same of one modality alone."""
        return Asked({modality: self.picks[modality]}, self.target_N)

    def only(self, at: NDArray[np.bool_]) -> Asked:
        """Those of the decisions."""
        return Asked({name: pick.only(at) for name, pick in self.picks.items()}, self.target_N[at])


@dataclass(frozen=True)
class Batch:
    """Signals (B, C, T) by modality, people (B,), presence (B,) 0 or 1; the targets of the whole batch.

    With several processes the signals are this process's share of the batch.
    """

    signals: Mapping[str, torch.Tensor]
    people: Mapping[str, torch.Tensor]
    present: Mapping[str, torch.Tensor]
    target_B: torch.Tensor
    recorded_B: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Which of the whole batch (B,) have a trial of a modality, indices on the CPU; of those that some lack."""

    def tensors(self) -> list[torch.Tensor]:
        """All of it."""
        return [self.target_B, *self.signals.values(), *self.people.values(), *self.present.values()]


@dataclass(frozen=True)
class Trials:
    """Trials of one modality that may be drawn: row of the epochs, whose weights, item, image and person group."""

    rows: NDArray[np.int64]
    person_N: NDArray[np.int64]
    item_N: NDArray[np.int64]
    group_N: NDArray[np.int64]

    def only(self, at: NDArray[np.int64]) -> Trials:
        """Some of the trials."""
        return Trials(self.rows[at], self.person_N[at], self.item_N[at], self.group_N[at])

    @cached_property
    def by_item(self) -> Grouped:
        """Trials by item."""
        return Grouped.of(self.item_N)

    @cached_property
    def by_group(self) -> Grouped:
        """Trials by image and person."""
        return Grouped.of(self.group_N)


@dataclass(frozen=True)
class Grouped:
    """Members of groups 0 .. G-1, end to end."""

    members: NDArray[np.int64]
    start_G: NDArray[np.int64]
    count_G: NDArray[np.int64]

    @classmethod
    def of(cls, group_N: NDArray[np.int64]) -> Grouped:
        """By each member's group."""
        count_G = np.bincount(group_N)
        return cls(np.argsort(group_N, kind="stable"), np.cumsum(count_G) - count_G, count_G)

    def one_of(self, groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """A member of each group at random, -1 where it has none."""
        known = groups < len(self.count_G)
        count = np.where(known, self.count_G[np.where(known, groups, 0)], 0)
        draw = (rng.random(len(groups)) * count).astype(np.int64)
        at = np.where(count > 0, self.start_G[np.where(known, groups, 0)] + draw, 0)
        return np.where(count > 0, self.members[at], -1)


@dataclass(frozen=True)
class Examples:
    """Items that training draws from: each has trials of every modality, and a target."""

    trials: Mapping[str, Trials]
    target_I: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.target_I)

    @property
    def n_trials(self) -> int:
        """Trials of the modality that has most."""
        return max(len(trials.rows) for trials in self.trials.values())

    def draw(self, items: NDArray[np.int64], rng: np.random.Generator, repeats: int, weights: str = "equal") -> Asked:
        """A random trial of each item and modality, or the mean of up to `repeats` of that person's.

        `weights` "random": a mean with random weights instead.
        """
        picks = {}
        for name, trials in self.trials.items():
            first = trials.by_item.one_of(items, rng)
            there = first >= 0
            chosen = [first[:, None]]
            if repeats > 1:
                wanted = rng.integers(1, repeats + 1, len(items))
                group = np.where(there, trials.group_N[first], 0)
                more = _others(trials.by_group, group, first, repeats - 1, rng)
                chosen.append(np.where(np.arange(1, repeats) < wanted[:, None], more, -1))
            table = np.concatenate(chosen, 1)
            table[~there] = -1
            kept = table >= 0
            weight = _random_weights(kept, rng) if weights == "random" else None
            person_N = np.where(there, trials.person_N[first], 0)
            picks[name] = Pick(trials.rows[table[kept]], kept.sum(1), person_N, weight)
        return Asked(picks, self.target_I[items])

    def each(self) -> Asked:
        """Every trial once, of one modality; of several, each item's trials dealt into as many pairs as there are."""
        if len(self.trials) == 1:
            [(name, trials)] = self.trials.items()
            pick = Pick(trials.rows, np.ones(len(trials.rows), np.int64), trials.person_N)
            return Asked({name: pick}, self.target_I[trials.item_N])
        return paired(self.trials, self.target_I, np.random.default_rng(0))


def _random_weights(kept: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """Shares of one, uniform over the simplex of those kept (B, n), end to end: Dirichlet(1, ..., 1).

    Independent noise of n trials keeps 2 / (n + 1) of its variance, 1 / n where weights are equal.
    """
    drawn = rng.standard_exponential(kept.shape) * kept
    share = drawn / np.maximum(drawn.sum(1, keepdims=True), np.finfo(float).tiny)
    return np.asarray(share[kept], dtype=np.float32)


def _others(
    groups: Grouped, group: NDArray[np.int64], first: NDArray[np.int64], n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`n` further members (B, n) of each group in random order, without `first`; -1 where there are no more."""
    out = np.full((len(group), n), -1)
    for k, (g, f) in enumerate(zip(group, first, strict=True)):
        members = groups.members[groups.start_G[g] : groups.start_G[g] + groups.count_G[g]]
        others = rng.permutation(members[members != f])[:n]
        out[k, : len(others)] = others
    return out


def paired(trials: Mapping[str, Trials], target_I: NDArray[np.int64], rng: np.random.Generator) -> Asked:
    """Pairs of single trials of one item, one of each modality; no trial twice. Items that lack one have none."""
    names = list(trials)
    chosen: dict[str, list[NDArray[np.int64]]] = {name: [] for name in names}
    targets = []
    for item, target in enumerate(target_I):
        members = {name: np.flatnonzero(trials[name].item_N == item) for name in names}
        n = min(len(found) for found in members.values())
        for name, found in members.items():
            chosen[name].append(rng.permutation(found)[:n])
        targets += [int(target)] * n
    picks = {}
    for name in names:
        at = np.concatenate(chosen[name]) if chosen[name] else np.empty(0, np.int64)
        picks[name] = Pick(trials[name].rows[at], np.ones(len(at), np.int64), trials[name].person_N[at])
    return Asked(picks, np.array(targets, dtype=np.int64))


def read(asked: Asked, data: Mapping[str, ScaledEpochs], shift: Mapping[str, NDArray[np.int64]] | None = None) -> Batch:
    """Cut, scale and average what is asked; of an absent modality zeros. `shift` in samples, by trial of the pick."""
    signals, people, present = {}, {}, {}
    for name, pick in asked.picks.items():
        device = data[name].epochs.device
        x_RCT = data[name].read(pick.rows, None if shift is None else shift[name])
        signals[name] = x_RCT if (pick.size_N == 1).all() else _means(x_RCT, pick)
        people[name] = torch.from_numpy(pick.person_N).to(device)
        present[name] = torch.from_numpy(pick.size_N > 0).to(device, torch.float32)
    target_B = torch.from_numpy(asked.target_N).to(next(iter(present.values())).device)
    return Batch(signals, people, present, target_B)


def _means(x_RCT: torch.Tensor, pick: Pick) -> torch.Tensor:
    sizes = torch.from_numpy(pick.size_N).to(x_RCT.device)
    index = torch.repeat_interleave(torch.arange(len(sizes), device=x_RCT.device), sizes)
    if pick.weight is not None:
        x_RCT = x_RCT * torch.from_numpy(pick.weight).to(x_RCT.device)[:, None, None]
    total = torch.zeros(len(sizes), *x_RCT.shape[1:], device=x_RCT.device).index_add_(0, index, x_RCT)
    return total if pick.weight is not None else total / sizes.clamp_min(1)[:, None, None]


def chunks(n: int, size: int = CHUNK) -> Sequence[slice]:
    """Slices of at most `size` that cover 0 .. n."""
    return [slice(k, min(k + size, n)) for k in range(0, n, size)]
