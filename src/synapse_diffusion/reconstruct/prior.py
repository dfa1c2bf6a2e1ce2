"""A flow prior: from what a brain says of a picture's conditions to conditions that a picture may have.

The regression's expectation is an average over pictures, which no picture is; the prior draws one of those that it is
the average of (the role of the prior in Ramesh et al. 2022 and Scotti et al. 2023, here a rectified flow).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_diffusion.config import ExecutionSettings, PriorSettings, Recipe
from synapse_diffusion.config.tree import digest_of
from synapse_diffusion.diffusion.guidance import guided
from synapse_diffusion.diffusion.processes import RectifiedFlow
from synapse_diffusion.diffusion.samplers import even_times, heun_flow
from synapse_diffusion.diffusion.training import denoising_loss, logit_normal_times
from synapse_diffusion.models.conditioning import Condition
from synapse_diffusion.models.prior import EmbeddingPrior
from synapse_diffusion.parallel import Group
from synapse_diffusion.reconstruct.opening import Opened, open_pictured
from synapse_diffusion.runs import load_tensors, save_atomically
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.training.brain import Predictor, cross_fitted
from synapse_diffusion.training.conditions import DOUBT
from synapse_diffusion.training.loop import Plan, Trainable, take_steps
from synapse_diffusion.training.objectives import Judged
from synapse_diffusion.training.painter import noise_of
from synapse_diffusion.training.requests import Requests
from synapse_diffusion.types import Progress, Say

BRAIN = "brain"
ORDER, DRAW = 7, 8  # streams of random numbers
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """A step's true conditions (B, E), noise, times, and what the brain says, unknown in some rows."""

    x0: Tensor
    noise: Tensor
    t_B: Tensor
    condition: Condition


class PriorLearner(Trainable):
    """The network; `forward` is its loss."""

    network: EmbeddingPrior

    def __init__(self, settings: PriorSettings, size: int) -> None:
        super().__init__()
        self.network = EmbeddingPrior(size, {BRAIN: size}, width=settings.width, depth=settings.depth)

    def forward(self, rows: Rows, progress: float | None) -> Tensor:
        """Squared error of the velocity."""
        return denoising_loss(self.network, RectifiedFlow(), rows.x0, rows.condition, rows.noise, rows.t_B)


@dataclass(frozen=True)
class RowFeed:
    """Steps' rows, each a function of the step's number alone."""

    said_NE: Tensor
    true_NE: Tensor
    settings: PriorSettings
    stream: int

    def batches(self, start: int, stop: int) -> Iterator[Rows]:
        """Of these steps."""
        n, size = len(self.true_NE), min(self.settings.batch, len(self.true_NE))
        per_pass = n // size
        for step in range(start, stop):
            number, k = divmod(step, per_pass)
            order = np.random.default_rng([self.settings.seed, self.stream, ORDER, number]).permutation(n)
            yield self.make(order[k * size : (k + 1) * size], step, self.settings.dropout)

    def make(self, rows: NDArray[np.int64], step: int, dropout: float) -> Rows:
        """A batch of these rows."""
        entropy = np.random.SeedSequence([self.settings.seed, self.stream, DRAW, step])
        draws = torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))
        x0 = self.true_NE[rows]
        noise, t_B = torch.randn(x0.shape, generator=draws), logit_normal_times(torch.randn(len(x0), generator=draws))
        known_B = torch.rand(len(x0), generator=draws) >= dropout
        return Rows(x0, noise, t_B, Condition({BRAIN: self.said_NE[rows]}, {BRAIN: known_B}))


def fit_prior(
    pairs: tuple[Floats, Floats, NDArray[np.int64]], settings: PriorSettings, execution: ExecutionSettings, path: Path,
    progress: Progress,
) -> PriorLearner:  # fmt: skip
    """A prior from what was said and what is true (N, E), the best on the first part of the concepts; kept in `path`.

    Small enough for one process on a CPU. Goes on where it was stopped; what is there is read back.
    """
    said, true, part_N = (torch.from_numpy(x) for x in pairs)
    torch.manual_seed(settings.seed)
    learner = PriorLearner(settings, true.shape[1])
    if path.exists():
        learner.load_state_dict(load_tensors(path))
        return learner.eval()
    training = RowFeed(said[part_N > 0], true[part_N > 0], settings, 0)
    check = RowFeed(said[part_N == 0], true[part_N == 0], settings, 1)

    @torch.no_grad()
    def judge(trained: nn.Module) -> Judged:
        loss = float(trained(check.make(np.arange(len(check.true_NE)), 0, 0.0), None))
        return Judged(loss, -loss)

    def on_check(step: int, row: dict[str, float]) -> None:
        progress(f"prior, validation loss {row['validation_loss']:.3f}", step, settings.steps)

    unfinished = path.with_name(f"{path.stem}_unfinished.safetensors")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    with Requests(execution.checkpoint_minutes).heard_from_signals() as requests:
        plan = Plan(
            settings, execution, (settings.seed, 0), unfinished, Group(), requests, torch.device("cpu"), branch="prior"
        )
        take_steps(learner, plan, training, judge, on_check)
    save_atomically(learner.state_dict(), path)
    unfinished.unlink(missing_ok=True)
    return learner


def train_prior(folder: Path, overrides: Sequence[str], say: Say, progress: Progress) -> Path:
    """Train the priors of a decoder's run (one a fold) that `reconstruct` draws through where `reconstruct.prior` is
    `flow`, and return their folder. Raises as `open_pictured`."""
    opened = open_pictured(folder, [*overrides, "reconstruct.prior=flow"], progress)
    fit_priors(opened, opened.predictors(progress), progress)
    out = priors_folder(opened)
    say(f"a prior for each of {len(opened.trained.folds)} folds in {out}")
    return out


def priors_folder(opened: Opened) -> Path:
    """By all that priors depend on: run, generator, their settings and what they start from."""
    recipe = opened.recipe
    known = {"prior": recipe.prior.model_dump(mode="json"), "features": recipe.reconstruct.features}
    key = digest_of({**known, "generator": opened.digest, "run": recipe.digest()})
    return opened.trained.run.folder / f"prior-{key[:8]}"


def fit_priors(opened: Opened, predictors: Sequence[Predictor], progress: Progress) -> list[PriorLearner]:
    """A prior for each fold, from its training trials alone."""
    recipe, found = opened.recipe, []
    for number, predictor in enumerate(predictors):
        path = priors_folder(opened) / f"prior_fold{number}.safetensors"
        conditions = opened.generator.conditions
        pairs = cross_fitted(opened.trained, number, opened.truth, predictor, conditions, recipe.prior.folds)
        found.append(fit_prior(pairs, recipe.prior, recipe.execution, path, progress))
    return found


def through_priors(table: EmbeddingTable, priors: Sequence[PriorLearner], recipe: Recipe) -> EmbeddingTable:
    """All but the true conditions replaced by samples of their fold's prior given them."""
    told = {name: v for name, v in table.vectors.items() if name != DOUBT}
    joined_ND = np.concatenate(list(told.values()), 1)
    true_N, fold_N = (table.rows["source"] == "true").to_numpy(), table.rows["fold"].to_numpy()
    images, draw_N = table.rows["image_id"].to_numpy(dtype=str), table.rows["draw"].to_numpy()
    for number, prior in enumerate(priors):
        mine = np.flatnonzero(~true_N & (fold_N == number))
        joined_ND[mine] = sample_prior(
            prior, joined_ND[mine], list(images[mine]), draw_N[mine], recipe.reconstruct.seed, recipe.prior
        )
    ends = np.cumsum([v.shape[1] for v in told.values()])
    vectors = dict(zip(told, np.split(joined_ND, ends[:-1], axis=1), strict=True))
    vectors |= {name: np.zeros_like(v) for name, v in table.vectors.items() if name == DOUBT}  # samples are certain
    return EmbeddingTable(table.rows, vectors, table.encoder)


@torch.no_grad()
def sample_prior(
    learner: PriorLearner, said_NE: Floats, images: list[str], draw_N: NDArray[np.int64], seed: int,
    settings: PriorSettings,
) -> Floats:  # fmt: skip
    """Conditions (N, E), one for each row; noise follows from seed, image and draw."""
    size = said_NE.shape[1]
    noise = torch.cat(
        [
            noise_of(seed, [f"prior/{image}"], int(draw), (1, 1, size)).reshape(1, size)
            for image, draw in zip(images, draw_N, strict=True)
        ]
    )
    condition = learner.network.embed(Condition({BRAIN: torch.from_numpy(said_NE)}, {}), len(noise))
    null = learner.network.embed(Condition({}, {}), len(noise))
    denoise = guided(learner.network.denoise, condition, null, settings.guidance)
    return np.asarray(heun_flow(denoise, noise, even_times(settings.sampling_steps)).numpy())
