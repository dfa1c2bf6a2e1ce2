"""The fit of a decoder: what it goes by, how it begins, how it is judged, and what it says to decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_diffusion.config import ExecutionSettings, TrainSettings
from synapse_diffusion.models.fusion import Network
from synapse_diffusion.parallel import Group
from synapse_diffusion.training.data import ScaledEpochs
from synapse_diffusion.training.examples import Asked, Batch, Examples, chunks, read
from synapse_diffusion.training.feeding import Feed, batch_size
from synapse_diffusion.training.learner import (
    START_TRIALS,
    STATISTICS_TRIALS,
    Learner,
    begin,
    estimates,
    fit_statistics,
)
from synapse_diffusion.training.loop import OnCheck, Plan, take_steps
from synapse_diffusion.training.objectives import Images, Judged, Questions
from synapse_diffusion.training.requests import Requests


@dataclass(frozen=True)
class Course:
    """What one fit goes by: data, what to train and to choose on, settings, random key, where its state is kept."""

    data: Mapping[str, ScaledEpochs]
    training: Examples
    validation: Asked | None
    settings: TrainSettings
    execution: ExecutionSettings
    key: tuple[int, ...]
    checkpoint: Path
    group: Group
    requests: Requests
    n_steps: int | None = None
    """Ends the schedule early: of a final fit, where nothing is chosen."""

    @property
    def plan(self) -> Plan:
        """What does not depend on what is decoded."""
        device = next(iter(self.data.values())).epochs.device
        return Plan(
            self.settings, self.execution, self.key, self.checkpoint, self.group, self.requests, device, self.n_steps
        )


def fit(
    learner: Learner, course: Course, cell_of: Callable[[str], NDArray[np.int64]], on_check: OnCheck
) -> list[dict[str, float]]:
    """Train a decoder in place and keep the averaged weights of the best validation loss; returns the curve.

    `cell_of`: trials (by modality) of equal number have equal mean responses.
    """
    size = batch_size(course.settings, len(course.training), course.group)
    feed = Feed(course.data, course.training, course.settings, size, course.key, course.group)
    validation = course.validation

    def judge(trained: nn.Module) -> Judged:
        assert validation is not None
        out_ND, target_N = outputs(trained, validation, course.data, course.group)
        return learner.objective.judge(out_ND, target_N)

    return take_steps(
        learner, course.plan, feed, judge if validation is not None else None, on_check,
        lambda: begin_fit(learner, course.data, course.training, course.key, cell_of),
    )  # fmt: skip


def begin_fit(
    learner: Learner, data: Mapping[str, ScaledEpochs], training: Examples, key: tuple[int, ...],
    cell_of: Callable[[str], NDArray[np.int64]],
) -> None:  # fmt: skip
    """Statistics and linear solutions from training trials; the same in every process."""
    rng = np.random.default_rng(key)
    if estimates(learner.network):
        for part in _parts(learner, training):
            asked = _some(part, STATISTICS_TRIALS, rng)
            asked = asked.only(np.all([pick.size_N > 0 for pick in asked.picks.values()], 0))
            name, pick = next(iter(asked.picks.items()))
            fit_statistics(learner.network, read(asked, data), cell_of(name)[pick.rows])
    if isinstance(learner.objective, Images | Questions):
        begin(learner.network, _all_batches(learner, data, training, rng), learner.objective)


def _all_batches(
    learner: Learner, data: Mapping[str, ScaledEpochs], training: Examples, rng: np.random.Generator
) -> Iterator[Batch]:
    """Training trials from which linear paths are solved."""
    for part in _parts(learner, training):
        asked = _some(part, START_TRIALS, rng)
        yield from (read(asked.part(at), data) for at in chunks(len(asked)))


def _parts(learner: Learner, training: Examples) -> list[Examples]:
    """Each modality by itself; of early fusion, whose decoder sees both, pairs."""
    if not isinstance(learner.network, Network):
        return [training]
    return [Examples({name: trials}, training.target_I) for name, trials in training.trials.items()]


def _some(examples: Examples, n: int, rng: np.random.Generator) -> Asked:
    """At most `n` decisions on training trials: of one modality all trials at random, else pairs."""
    if len(examples.trials) == 1:
        [(name, trials)] = examples.trials.items()
        at = np.sort(rng.permutation(len(trials.rows))[:n])
        return Examples({name: trials.only(at)}, examples.target_I).each()
    items = np.sort(rng.permutation(np.arange(len(examples)))[:n])
    return examples.draw(items, rng, 1)


@torch.no_grad()
def outputs(trained: nn.Module, asked: Asked, data: Mapping[str, ScaledEpochs], group: Group) -> tuple[Tensor, Tensor]:
    """Main outputs (N, D) and targets (N,) of a learner in evaluation mode; the group shares the work."""
    out, targets = [], []
    for at in chunks(len(asked), 256 * group.size):
        part = asked.part(at)
        n = len(part)
        per = -(-n // group.size)  # every process answers equally many, the last ones some twice
        mine = slice(min(group.rank * per, max(0, n - per)), min(group.rank * per, max(0, n - per)) + per)
        answers = trained(read(part.part(mine), data), None)
        starts = [min(rank * per, max(0, n - per)) for rank in range(group.size)]
        place = torch.cat([torch.arange(start, start + per) for start in starts])
        joined = torch.empty(n, answers.shape[1], device=answers.device)
        joined[place.to(answers.device)] = answers
        out.append(joined)
        targets.append(torch.from_numpy(part.target_N).to(answers.device))
    return torch.cat(out), torch.cat(targets)
