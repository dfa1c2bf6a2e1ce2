"""Linear baselines of every task, with the same choices on validation as the networks: kept in a run, loaded, asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import SplitError
from synapse_diffusion.models.base import Shape
from synapse_diffusion.models.encoding import EncodingDecoder, EncodingPlan, plan_encoding
from synapse_diffusion.models.linear import LinearDecoder, bin_widths, fit_linear
from synapse_diffusion.models.ridge import PENALTIES, RidgeDecoder, RidgePlan, plan_ridge
from synapse_diffusion.runs import load_tensors, save_atomically
from synapse_diffusion.training.objectives import Images, Objective, Questions
from synapse_diffusion.training.tasks import Task

Array = NDArray[np.float32]
Index = NDArray[np.int64]
ENCODING: Final = "encoding"
LINEAR: Final = "linear"
FIXED_PENALTIES: Final = (0.03, 0.3, 3.0, 30.0)


@dataclass(frozen=True)
class Choice:
    """What validation decides: bin width, one decoder for all people or one each, and ridge's penalty."""

    width: int
    pooled: bool
    penalty: float | None = None
    """None: by leave-one-out."""

    @property
    def penalties(self) -> tuple[float, ...]:
        """What the fit chooses from."""
        return PENALTIES if self.penalty is None else (self.penalty,)


@dataclass(frozen=True)
class Baseline:
    """A closed-form decoder, what its outputs mean, and how it was chosen."""

    fitted: LinearDecoder | RidgeDecoder | EncodingDecoder
    objective: Objective
    choice: Choice

    def scores(
        self, x_NCT: Array, person_N: Index, gallery_K: Index | None = None, k_repeats: int = 1
    ) -> NDArray[np.float64]:
        """What is decided by (N, K); of images the gallery's rows of the table."""
        if isinstance(self.fitted, LinearDecoder):
            return self.fitted.log_probability(x_NCT, person_N)
        if isinstance(self.fitted, EncodingDecoder):
            assert gallery_K is not None
            assert isinstance(self.objective, Images)
            gallery_KD = self.objective.space(torch.from_numpy(gallery_K)).detach().numpy()
            return np.asarray(self.fitted.scores(x_NCT, person_N, gallery_KD, k_repeats), dtype=np.float64)
        gallery = None if gallery_K is None else torch.from_numpy(gallery_K)
        return np.asarray(self.objective.scores(self.outputs(x_NCT, person_N), gallery).detach().numpy())

    def outputs(self, x_NCT: Array, person_N: Index) -> torch.Tensor:
        """What ridge regression predicts (N, D)."""
        assert isinstance(self.fitted, RidgeDecoder)
        return torch.from_numpy(self.fitted.predict(x_NCT, person_N))

    def judge(self, x_NCT: Array, person_N: Index, target_N: Index) -> float:
        """Loss on validation, lower is better."""
        truth = torch.from_numpy(target_N)
        if isinstance(self.fitted, LinearDecoder):
            return self.objective.judge(torch.from_numpy(self.fitted.log_probability(x_NCT, person_N)), truth).loss
        if isinstance(self.fitted, EncodingDecoder):
            gallery, at = np.unique(target_N, return_inverse=True)
            score_NK = torch.from_numpy(self.scores(x_NCT, person_N, gallery))
            temperatures = [2.0 ** (k / 2) for k in range(-2, 13)]
            losses = [torch.nn.functional.cross_entropy(score_NK / t, torch.from_numpy(at)) for t in temperatures]
            return float(torch.stack(losses).min())
        return self.objective.judge(self.outputs(x_NCT, person_N), truth).loss

    def save(self, path: Path) -> None:
        """Weights as safetensors, choices in its metadata, the objective's scaling beside them."""
        arrays, about = {}, {"kind": type(self.fitted).__name__, "penalty": self.choice.penalty}
        for name, value in vars(self.fitted).items():
            if isinstance(value, np.ndarray):
                arrays[f"fitted.{name}"] = torch.from_numpy(np.ascontiguousarray(value))
            else:
                about[name] = value
        arrays |= {f"objective.{name}": value for name, value in self.objective.state_dict().items()}
        save_atomically(arrays, path, {"about": json.dumps(about)})


KINDS: Final[dict[str, Any]] = {kind.__name__: kind for kind in (LinearDecoder, RidgeDecoder, EncodingDecoder)}


def load_baseline(path: Path, objective: Objective) -> Baseline:
    """A baseline. Raises `RunError` where the file is missing or damaged."""
    tensors = load_tensors(path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    fields = {n.removeprefix("fitted."): v.numpy() for n, v in tensors.items() if n.startswith("fitted.")}
    state = {n.removeprefix("objective."): v for n, v in tensors.items() if n.startswith("objective.")}
    objective.load_state_dict(state)
    choice = Choice(about["width"], about["pooled"], about.pop("penalty"))
    return Baseline(KINDS[about.pop("kind")](**fields, **about), objective, choice)


def plain_objective(task: Task, recipe: Recipe, target_N: Index) -> Objective:
    """The task's objective without anything that is learned by steps."""
    target = recipe.target.model_copy(update={"weights": "equal", "projection": 0})
    loss = recipe.loss.model_copy(update={"name": "cosine"})
    return task.objective(recipe.model_copy(update={"target": target, "loss": loss}), target_N)


@dataclass(frozen=True)
class Sample:
    """Scaled trials (N, C, T), whose they are, and their targets."""

    x_NCT: Array
    person_N: Index
    target_N: Index


def choices(shape: Shape, *, pooled_only: bool) -> list[Choice]:
    """What baselines try."""
    both = (True,) if pooled_only or shape.n_people == 1 else (True, False)
    return [
        Choice(width, pooled) for width in bin_widths(shape.n_sensors, shape.n_times, shape.sfreq) for pooled in both
    ]


def choose_baseline(
    kind: str, training: Sample, validation: Sample, shape: Shape, objective: Objective, *, pooled_only: bool
) -> Baseline:
    """The best of the choices by validation loss. Raises `SplitError` where none can be fitted."""
    best: tuple[float, Baseline] | None = None

    def attempt(baseline: Baseline | None) -> None:
        nonlocal best
        if baseline is None:
            return
        loss = baseline.judge(validation.x_NCT, validation.person_N, validation.target_N)
        if best is None or loss < best[0]:
            best = (loss, baseline)

    for choice in choices(shape, pooled_only=pooled_only):
        attempt(fit_baseline(kind, training, choice, shape, objective))
    if best is None:
        raise SplitError("some class has fewer than two training trials; more recordings or other classes are needed")
    if isinstance(objective, Images | Questions):
        chosen = best[1].choice
        plan = _plan(kind, training, chosen, shape, objective)
        for penalty in FIXED_PENALTIES:  # squared error, which leave-one-out minimises, is not what is asked
            attempt(Baseline(plan.fit((penalty,)), objective, replace(chosen, penalty=penalty)))
    return best[1]


def fit_baseline(kind: str, sample: Sample, choice: Choice, shape: Shape, objective: Objective) -> Baseline | None:
    """One closed-form fit; None where a class or person has too few trials."""
    n_people = shape.n_people
    if isinstance(objective, Images | Questions):
        if not choice.pooled and np.bincount(sample.person_N, minlength=n_people).min() < 2:
            return None
        return Baseline(_plan(kind, sample, choice, shape, objective).fit(choice.penalties), objective, choice)
    linear = fit_linear(
        sample.x_NCT, sample.target_N, sample.person_N, shape.n_outputs, n_people, choice.width, pooled=choice.pooled
    )
    return None if linear is None else Baseline(linear, objective, choice)


def _plan(
    kind: str, sample: Sample, choice: Choice, shape: Shape, objective: Images | Questions
) -> RidgePlan | EncodingPlan:
    """A regression to (from) the targets' vectors, before its penalty is chosen."""
    target, at_N = np.unique(sample.target_N, return_inverse=True)
    y_ND = objective.vectors(torch.from_numpy(target)).detach().numpy()[at_N]
    plan = plan_encoding if kind == ENCODING else plan_ridge
    return plan(sample.x_NCT, y_ND, sample.person_N, shape.n_people, choice.width, pooled=choice.pooled)


def kinds_for(task: Task, recipe: Recipe) -> tuple[str, ...]:
    """The baselines of a task."""
    if not recipe.train.baselines:
        return ()
    return (LINEAR, ENCODING) if task.kind == "retrieve" else (LINEAR,)
