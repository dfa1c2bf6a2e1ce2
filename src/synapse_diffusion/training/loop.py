"""The training loop: steps, checks on validation, averaged weights, checkpoints, resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from synapse_diffusion.config import TrainSettings
from synapse_diffusion.errors import RunError
from synapse_diffusion.losses import balanced_cross_entropy, calibrated_loss, class_weights
from synapse_diffusion.models.base import Decoder
from synapse_diffusion.runs import load_tensors, save_atomically
from synapse_diffusion.training.data import ScaledEpochs

STATISTICS_TRIALS = 6000  # from which what a decoder estimates is fitted
WARM_UP = 0.05  # of all steps


@dataclass(frozen=True)
class Labelled:
    """Rows of an epoch table with class and person."""

    rows: NDArray[np.int64]
    label_N: NDArray[np.int64]
    person_N: NDArray[np.int64]


@dataclass
class _State:
    step: int
    best_loss: float
    since_best: int
    curve: list[dict[str, float]]


def fit(
    model: Decoder,
    data: ScaledEpochs,
    train: Labelled,
    validation: Labelled | None,
    settings: TrainSettings,
    n_classes: int,
    key: tuple[int, ...],
    checkpoint: Path,
    on_check: Callable[[int, dict[str, float]], None],
    n_steps: int | None = None,
) -> list[dict[str, float]]:
    """Train in place and keep the averaged weights of the best validation loss; returns the curve.

    Without `validation` the averaged weights after the last step are kept; `n_steps` ends the schedule early.

    Everything random in a stretch between two checks comes from `key` and the stretch's number, and
    `checkpoint` is written at each check: a run that is killed and started again goes on from the last check
    and ends with the same bits.
    """
    device = data.epochs.device
    torch.manual_seed(_seed(*key, 0))
    model.to(device)
    n_train = len(train.rows)
    batch = settings.batch or min(256, max(64, 2 ** int(math.log2(max(1, n_train / 32)))))
    every = max(1, settings.steps // settings.checks)
    weight_K = class_weights(torch.from_numpy(train.label_N), n_classes).to(device)
    optimizer = _optimizer(model, settings)
    parameters = dict(model.named_parameters())
    ema = {name: p.detach().clone() for name, p in parameters.items()}
    best = dict(ema)
    state = _State(0, math.inf, 0, [])
    if checkpoint.exists():
        state = _restore(checkpoint, model, optimizer, ema, best)
        best = {name: value.clone() for name, value in best.items()}
    else:
        some = np.sort(np.random.default_rng(key).permutation(n_train)[:STATISTICS_TRIALS])
        x_NCT = data.read_all(train.rows[some])
        model.fit_statistics(x_NCT, *(torch.from_numpy(v[some]).to(device) for v in (train.label_N, train.person_N)))
    order = _Order(n_train, batch, key)
    last = n_steps or settings.steps
    while state.step < last and state.since_best < settings.patience:
        stretch = state.step // every
        torch.manual_seed(_seed(*key, 1 + stretch))
        rng = np.random.default_rng([*key, 1 + stretch])
        total = torch.zeros((), device=device)
        stop = min(state.step + every, last)
        model.train()
        for step in range(state.step, stop):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _schedule(step, settings.steps)
            loss = _step(model, data, train, order.batch(step), settings, weight_K, rng)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            decay = min(settings.ema, (2 + step) / (11 + step))
            with torch.no_grad():
                for name, parameter in parameters.items():
                    ema[name].lerp_(parameter, 1 - decay)
            total += loss.detach()
        loss_value, accuracy = math.nan, math.nan
        if validation is not None:
            loss_value, accuracy = _validate(model, parameters, ema, data, validation, weight_K, n_classes)
        better = validation is None or loss_value < state.best_loss
        if better:
            best = {name: value.clone() for name, value in ema.items()}
        row = {
            "step": stop,
            "train_loss": float(total) / (stop - state.step),
            "validation_loss": loss_value,
            "validation_balanced_accuracy": accuracy,
        }
        state = _State(
            stop,
            loss_value if better else state.best_loss,
            0 if better else state.since_best + 1,
            [*state.curve, row],
        )
        if not math.isfinite(row["train_loss"]):
            raise RunError(
                f"training diverged before step {stop}; lower train.learning_rate = {settings.learning_rate:g}"
            )
        on_check(stop, row)
        _save(checkpoint, model, optimizer, ema, best, state)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(best[name])
    model.eval()
    return state.curve


def _optimizer(model: Decoder, settings: TrainSettings) -> torch.optim.AdamW:
    linear = {id(p) for p in model.linear_parameters()}
    others = [p for p in model.parameters() if id(p) not in linear]
    return torch.optim.AdamW(
        [
            {"params": model.linear_parameters(), "weight_decay": 0.0},
            {"params": others, "weight_decay": settings.weight_decay},
        ],
        lr=settings.learning_rate,
    )


def _step(
    model: Decoder,
    data: ScaledEpochs,
    train: Labelled,
    at: NDArray[np.int64],
    settings: TrainSettings,
    weight_K: torch.Tensor,
    rng: np.random.Generator,
) -> torch.Tensor:
    """The loss of one augmented batch."""
    device = data.epochs.device
    largest = round(settings.time_shift_s * data.epochs.sfreq)
    shift = rng.integers(-largest, largest + 1, len(at)) if largest else None
    x_BCT = data.read(train.rows[at], shift)
    if settings.noise:
        x_BCT = x_BCT + settings.noise * torch.randn_like(x_BCT)
    if settings.channel_dropout:
        x_BCT = x_BCT * (torch.rand(*x_BCT.shape[:2], 1, device=device) >= settings.channel_dropout)
    label_B = torch.from_numpy(train.label_N[at]).to(device)
    person_B = torch.from_numpy(train.person_N[at]).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        logit_BK = model(x_BCT, person_B)
    loss = balanced_cross_entropy(logit_BK.float(), label_B, weight_K, settings.label_smoothing)
    return loss + settings.linear_prior / len(train.rows) * model.linear_penalty()


@torch.no_grad()
def _validate(
    model: Decoder,
    parameters: dict[str, torch.nn.Parameter],
    ema: dict[str, torch.Tensor],
    data: ScaledEpochs,
    validation: Labelled,
    weight_K: torch.Tensor,
    n_classes: int,
) -> tuple[float, float]:
    """Calibrated loss and balanced accuracy of the averaged weights on validation."""
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    for name, parameter in parameters.items():
        parameter.copy_(ema[name])
    model.eval()
    logit_NK = logits(model, data, validation)
    for name, parameter in parameters.items():
        parameter.copy_(kept[name])
    label_N = torch.from_numpy(validation.label_N).to(logit_NK.device)
    loss = calibrated_loss(logit_NK, label_N, weight_K)
    hit = (logit_NK.argmax(1) == label_N).float()
    recalls = [float(hit[label_N == k].mean()) for k in range(n_classes) if bool((label_N == k).any())]
    return loss, float(np.mean(recalls))


@torch.no_grad()
def logits(model: Decoder, data: ScaledEpochs, trials: Labelled, chunk: int = 512) -> torch.Tensor:
    """Outputs (N, D) of a model in evaluation mode."""
    out = []
    for k in range(0, len(trials.rows), chunk):
        person_B = torch.from_numpy(trials.person_N[k : k + chunk]).to(data.epochs.device)
        out.append(model(data.read(trials.rows[k : k + chunk]), person_B))
    return torch.cat(out)


class _Order:
    """Which trials a step takes: all of them in a new random order each pass, a function of the step alone."""

    def __init__(self, n: int, batch: int, key: tuple[int, ...]) -> None:
        self._n, self._batch, self._key = n, min(batch, n), key
        self._per_pass = max(1, n // self._batch)
        self._cached: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batch(self, step: int) -> NDArray[np.int64]:
        """Indices (B,) into the training trials."""
        number, k = divmod(step, self._per_pass)
        if self._cached[0] != number:
            self._cached = (number, np.random.default_rng([*self._key, 7, number]).permutation(self._n))
        return self._cached[1][k * self._batch : (k + 1) * self._batch]


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017)."""
    warm = min(1.0, (step + 1) / max(1.0, WARM_UP * steps))
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _save(
    path: Path,
    model: Decoder,
    optimizer: torch.optim.AdamW,
    ema: dict[str, torch.Tensor],
    best: dict[str, torch.Tensor],
    state: _State,
) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value.clone() for name, value in values.items()}
    save_atomically(tensors, path, {"state": json.dumps(state.__dict__)})


def _restore(
    path: Path,
    model: Decoder,
    optimizer: torch.optim.AdamW,
    ema: dict[str, torch.Tensor],
    best: dict[str, torch.Tensor],
) -> _State:
    tensors = load_tensors(path)
    with safe_open(path, "pt") as file:
        values: dict[str, Any] = json.loads(file.metadata()["state"])
    model.load_state_dict(_part(tensors, "model."))
    ema.update({name: value.to(ema[name].device) for name, value in _part(tensors, "ema.").items()})
    best.update({name: value.to(best[name].device) for name, value in _part(tensors, "best.").items()})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _part(tensors, "optimizer.").items():
        index, _, field = name.partition(".")
        moments.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return _State(**values)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
