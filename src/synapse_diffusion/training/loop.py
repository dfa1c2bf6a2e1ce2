"""The training loop: steps, checks on validation, averaged weights, checkpoints, resume; of one process or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from synapse_diffusion.config import ExecutionSettings, GeneratorSettings, PriorSettings, TrainSettings
from synapse_diffusion.errors import RunError, StoppedError
from synapse_diffusion.parallel import Group, freed_memory_kept, repeatable, wrap
from synapse_diffusion.training.checkpoint import Kept, State
from synapse_diffusion.training.objectives import Judged
from synapse_diffusion.training.requests import SAVE_AND_END, Requests

WARM_UP: Final = 0.05  # of all steps
LARGEST_GRADIENT: Final = 5.0  # norm
OnCheck = Callable[[int, dict[str, float]], None]
"""Hears the step and the curve's row with, beside it, the best validation loss so far (`best_loss`)."""


Schedule = TrainSettings | GeneratorSettings | PriorSettings
"""Settings of the steps, whatever is trained."""


class Trainable(nn.Module):
    """A module whose `forward(batch, progress)` is the loss of the whole batch at that share of the steps."""

    network: nn.Module
    """What `execution.compile` compiles."""

    def optimizer(self, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
        """AdamW on all weights."""
        return torch.optim.AdamW(self.parameters(), lr=learning_rate, weight_decay=weight_decay)


class Batches(Protocol):
    """Where steps come from: each batch is a function of the step's number alone."""

    def batches(self, start: int, stop: int) -> Iterator[Any]:
        """This process's shares of the batches of these steps."""


@dataclass(frozen=True)
class Plan:
    """How one fit goes, whatever a batch is."""

    settings: Schedule
    execution: ExecutionSettings
    key: tuple[int, ...]
    checkpoint: Path
    group: Group
    requests: Requests
    device: torch.device
    n_steps: int | None = None
    """Ends the schedule early: of a final fit, where nothing is chosen."""
    branch: str = "train"
    """Of the settings, for messages."""

    @property
    def last(self) -> int:
        """The step at which it ends."""
        return self.n_steps or self.settings.steps

    @property
    def every(self) -> int:
        """Steps between two checks."""
        return max(1, self.settings.steps // self.settings.checks)


def take_steps(
    learner: Trainable, plan: Plan, feed: Batches, validate: Callable[[nn.Module], Judged] | None, on_check: OnCheck,
    begin: Callable[[], None] = lambda: None,
) -> list[dict[str, float]]:  # fmt: skip
    """Train in place and keep the averaged weights of the best validation loss; returns the curve.

    Without `validate` the averaged weights after the last step are kept. Everything random in a step comes from
    `key` and the step's number: a fit that is killed and started again goes on from its checkpoint and ends with the
    same bits, and processes that share batches end where one would. `begin` is called before the first step.
    """
    settings = plan.settings
    learner.to(plan.device)
    fresh = not plan.checkpoint.exists()
    if fresh:
        with freed_memory_kept(), repeatable(plan.device):
            begin()
    trained = wrap(learner, plan.group, plan.execution.sharding)
    if plan.execution.compile:
        learner.network.compile(options={"fallback_random": True})  # dropout draws as it does uncompiled
    optimizer = learner.optimizer(settings.learning_rate, settings.weight_decay)
    parameters = dict(learner.named_parameters())
    ema = {name: p.detach().clone() for name, p in parameters.items()}
    kept = Kept(learner, optimizer, ema, {name: value.clone() for name, value in ema.items()})
    state = State() if fresh else kept.load(plan.checkpoint)
    with plan.requests.answered_by_steps() as requests, freed_memory_kept(), repeatable(plan.device):
        # since_check: a checkpoint may stand between the last step before a check and that check
        while (state.step < plan.last or state.since_check) and state.since_best < settings.patience:
            stop = min(((state.step - state.since_check) // plan.every + 1) * plan.every, plan.last)
            _stretch(trained, kept, plan, feed, state, stop, requests)
            row = _check(trained, kept, plan, state, validate)
            on_check(state.step, {**row, "best_loss": state.best_loss})
            if requests.due(plan.group):
                kept.save(plan.checkpoint, state, plan.group)
                requests.saved()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(kept.best[name])
    learner.eval()
    return state.curve


def _stretch(
    trained: nn.Module, kept: Kept, plan: Plan, feed: Batches, state: State, stop: int, requests: Requests
) -> None:
    """Steps until the next check."""
    settings = plan.settings
    averages, weights = list(kept.ema.values()), list(kept.module.parameters())
    averaging = cast("Callable[[float], Callable[..., None]]", get_ema_multi_avg_fn)
    exact = torch.float32 if plan.device.type == "mps" else torch.float64  # a sum in two parts is then the same sum
    total = torch.zeros((), device=plan.device, dtype=exact)
    trained.train()
    for batch in feed.batches(state.step, stop):
        for group in kept.optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(state.step, settings.steps)
        torch.manual_seed(seed_of(*plan.key, 1, state.step))
        loss: Tensor = trained(batch, state.step / settings.steps)
        kept.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(kept.module.parameters(), LARGEST_GRADIENT)
        kept.optimizer.step()
        decay = min(settings.ema, (2 + state.step) / (11 + state.step))
        averaging(decay)(averages, weights, 0)
        total += loss.detach()
        state.step += 1
        state.since_check += 1
        if wish := requests.heard(plan.group):
            state.total_loss += float(total)
            total.zero_()
            kept.save(plan.checkpoint, state, plan.group)
            requests.saved()
            if wish == SAVE_AND_END:
                raise StoppedError(
                    f"{plan.checkpoint}: saved at step {state.step}; the same command goes on from there"
                )
    state.total_loss += float(total)


def _check(
    trained: nn.Module, kept: Kept, plan: Plan, state: State, validate: Callable[[nn.Module], Judged] | None
) -> dict[str, float]:
    """Validate the averaged weights, keep them if they are the best, and add a row to the curve."""
    judged = Judged(math.nan, math.nan)
    if validate is not None:
        judged = _validated(trained, kept, validate)
    better = validate is None or judged.loss < state.best_loss
    if better:
        kept.best = {name: value.clone() for name, value in kept.ema.items()}
        state.best_loss = judged.loss
    state.since_best = 0 if better else state.since_best + 1
    row = {
        "step": state.step,
        "train_loss": state.total_loss / state.since_check,
        "validation_loss": judged.loss,
        "validation_score": judged.score,
    }
    state.total_loss, state.since_check = 0.0, 0
    state.curve.append(row)
    if not math.isfinite(row["train_loss"]):
        raise RunError(
            f"training diverged before step {state.step}; lower {plan.branch}.learning_rate = "
            f"{plan.settings.learning_rate:g}"
        )
    return row


@torch.no_grad()
def _validated(trained: nn.Module, kept: Kept, validate: Callable[[nn.Module], Judged]) -> Judged:
    """What the averaged weights make of validation."""
    parameters = dict(kept.module.named_parameters())
    current = {name: p.detach().clone() for name, p in parameters.items()}
    for name, parameter in parameters.items():
        parameter.copy_(kept.ema[name])
    trained.eval()
    judged = validate(trained)
    for name, parameter in parameters.items():
        parameter.copy_(current[name])
    return judged


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017)."""
    warm = min(1.0, (step + 1) / max(1.0, WARM_UP * steps))
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def seed_of(*parts: int) -> int:
    """A seed for torch from a key."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
