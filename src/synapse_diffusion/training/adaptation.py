"""A person whom training never met: scalers from their own unlabelled trials, weights from some labelled ones.

Of a trained decoder nothing moves but the person's own weights (`Decoder.person_tensors`), away from those that know
nothing, under training's own loss, prior and decay: what one more person would have been given, had the shared weights
been as they are. How many steps that takes is decided by cross-validation over the person's trials, concepts apart; no
step at all is one of the choices.
"""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from synapse_diffusion.errors import RunError
from synapse_diffusion.models.fusion import Network
from synapse_diffusion.parallel import Group
from synapse_diffusion.runs import Scalers, load_tensors, save_atomically
from synapse_diffusion.signal.scaling import Scaler
from synapse_diffusion.training.baselines import LINEAR, Baseline, Sample, fit_baseline, plain_objective
from synapse_diffusion.training.data import ScaledEpochs, fit_scalers
from synapse_diffusion.training.decoders import (
    LINEAR_PRIOR,
    build_learner,
    learn_person_only,
    load_learner,
    person_row,
    set_person,
)
from synapse_diffusion.training.decoding import FoldModels, load_network, network_names, shapes_of
from synapse_diffusion.training.examples import Asked, Examples
from synapse_diffusion.training.feeding import FEWEST_STEPS, Feed, batch_size
from synapse_diffusion.training.fitting import begin_fit, outputs
from synapse_diffusion.training.learner import STATISTICS_TRIALS, Learner
from synapse_diffusion.training.loop import LARGEST_GRADIENT, seed_of
from synapse_diffusion.training.setting import Index, Setting
from synapse_diffusion.training.trained import Trained

FOLDS: Final = 4
STEPS: Final = (0, 5, 10, 20, 40, 80, 160, 320, 640)  # no more than training's own
PATIENCE: Final = 2  # longer trainings without a better loss, before longer ones still are left out
WARM_UP_STEPS: Final = 10
FASTER: Final = 10.0
"""Times training's largest rate, for one person's weights: on a simulated study as good as 1 in fewer steps."""
OWN: Final = "own"
"""The stage of a person's own scalers."""


@dataclass(frozen=True)
class Person:
    """What a run knows of one person beside what it was trained on."""

    name: str
    n_trials: int
    """Labelled trials that the weights were trained on; 0: only scalers and what needs no labels."""
    steps: tuple[int, ...]
    """Of each member."""
    scalers: Scalers
    rows: tuple[Mapping[str, Tensor], ...]
    """Of each member, the person's row of each tensor of people."""

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        arrays = {f"member{k}/{name}": value for k, row in enumerate(self.rows) for name, value in row.items()}
        for key, scaler in self.scalers.items():
            arrays[f"scaler/{key}/offset"] = torch.from_numpy(scaler.offset_C)
            arrays[f"scaler/{key}/matrix"] = torch.from_numpy(scaler.matrix_CC)
        about = {"person": self.name, "trials": self.n_trials, "steps": self.steps}
        save_atomically(arrays, path, {"about": json.dumps(about)})


def load_person(path: Path) -> Person:
    """A person. Raises `RunError` where the file is damaged."""
    tensors = load_tensors(path)
    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    if "about" not in metadata:
        raise RunError(f"{path}: not a person's file; delete it and adapt again")
    about: dict[str, Any] = json.loads(metadata["about"])
    keys = {name.removeprefix("scaler/").rsplit("/", 1)[0] for name in tensors if name.startswith("scaler/")}
    scalers = {
        key: Scaler(tensors[f"scaler/{key}/offset"].numpy(), tensors[f"scaler/{key}/matrix"].numpy())
        for key in sorted(keys)
    }
    rows = tuple(
        {n.removeprefix(f"member{k}/"): v for n, v in tensors.items() if n.startswith(f"member{k}/")}
        for k in range(len(about["steps"]))
    )
    return Person(about["person"], about["trials"], tuple(about["steps"]), scalers, rows)


@dataclass(frozen=True)
class Newcomer:
    """One person's trials in a setting (of one modality), and the stage of a run that meets them.

    `unlabelled`: rows of which only the signals are used; `labelled`: those of them that have a target.
    """

    trained: Trained
    number: int
    setting: Setting
    name: str
    unlabelled: Index
    labelled: Index

    @property
    def modality(self) -> str:
        """The one that there is."""
        [name] = self.setting.sources.of
        return name

    @property
    def stage(self) -> str:
        """The final fits of the fold."""
        return self.trained.stage(self.number, final=True)

    def data(self, scalers: Scalers) -> dict[str, ScaledEpochs]:
        """Epochs under the person's own scalers."""
        epochs = self.setting.sources.of[self.modality].epochs
        return {self.modality: ScaledEpochs(epochs, scalers, OWN, self.setting.recipe.view)}

    def first(self, n: int) -> Index:
        """`n` labelled trials at random, of each class in proportion; more of them begin with the same ones."""
        stratum_N = self.setting.task.of[self.modality].stratum_N[self.labelled]
        rng = self._rng(0)
        place = np.empty(len(self.labelled))
        for stratum in np.unique(stratum_N):
            mine = rng.permutation(np.flatnonzero(stratum_N == stratum))
            place[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
        return np.sort(self.labelled[np.argsort(place, kind="stable")[:n]])

    def folds(self, rows: Index) -> Index:
        """Which of the folds each row is in: concepts apart, or contiguous stretches where no concepts are."""
        if self.setting.recipe.split.method != "concepts":
            return np.arange(len(rows)) * FOLDS // len(rows)
        task = self.setting.task.of[self.modality]
        units = self.setting.sources.of[self.modality].trials["concept"].to_numpy(dtype=str)[rows]
        _, first, unit_N = np.unique(units, return_index=True, return_inverse=True)
        order = np.lexsort([self._rng(1).random(len(first)), task.stratum_N[rows[first]]])
        fold_U = np.empty(len(first), np.int64)
        fold_U[order] = np.arange(len(first)) % FOLDS
        return fold_U[unit_N]

    def key(self, member: int, n: int) -> tuple[int, ...]:
        """Of everything random when `n` trials are learned."""
        return (self.setting.recipe.train.seed, self.number, member, zlib.crc32(self.name.encode()), n)

    def _rng(self, what: int) -> np.random.Generator:
        return np.random.default_rng([self.setting.recipe.train.seed, zlib.crc32(self.name.encode()), what])

    def lesson(
        self, setting: Setting, person: Person, rows: Index, target_N: Index, member: int, faster: float
    ) -> Lesson:
        """These trials, to be learned under the person's scalers."""
        rate, key = faster * setting.recipe.train.learning_rate, self.key(member, len(rows))
        return Lesson(setting, self.data(person.scalers), rows, target_N, self.folds(rows), key, rate)

    def targets(self, rows: Index) -> Index:
        """As the setting deals them."""
        return self.setting.targets({self.modality: rows}, self.number)[self.modality]

    @cached_property
    def _trained_on(self) -> dict[str, Index]:
        return self.trained.setting.targets(self.trained.trained_rows(self.number, final=True), self.number)

    def network(self, member: int, n_training: int) -> Learner:
        """The trained decoder, for `n_training` trials to go on from.

        Its prior is that of classes for images, too: what holds all people's weights at ridge regression keeps one
        person from departing (worse on a simulated study from 96 trials on).
        """
        [model] = network_names(self.setting)
        of = self.trained
        recipe, settings = of.setting.recipe, of.setting.recipe.train
        if settings.linear_prior is None:
            settings = settings.model_copy(update={"linear_prior": LINEAR_PRIOR[False]})
        setting = replace(of.setting, recipe=recipe.model_copy(update={"train": settings}))
        return load_network(setting, of.run, self.stage, model, member, self._trained_on, n_training)


def calibrate(of: Newcomer) -> Person:
    """Meet a person without labels: their scalers, and what decoders estimate of a person."""
    setting = of.setting
    source, target_N = setting.sources.of[of.modality], setting.task.of[of.modality].target_N
    scalers = fit_scalers(
        source.epochs, of.unlabelled, target_N, setting.recipe.view, OWN, setting.recipe.train.seed, labelled=False
    )
    some = np.sort(of._rng(2).permutation(of.unlabelled)[:STATISTICS_TRIALS])
    x_NCT = of.data(scalers)[of.modality].read(some)
    rows = []
    for member in range(setting.recipe.train.members):
        decoder = _decoder(of.network(member, 1), of.modality)
        decoder.fit_person(x_NCT, of.trained.setting.sources.of[of.modality].n_people)
        rows.append(person_row(decoder))
    return Person(of.name, 0, (0,) * len(rows), scalers, tuple(rows))


def adapt(of: Newcomer, person: Person, rows: Index, target_N: Index) -> Person:
    """Train a calibrated person's own weights on labelled trials; nothing else moves."""
    found, steps = [], []
    for member, start in enumerate(person.rows):

        def pupil(examples: Examples, member: int = member, start: Mapping[str, Tensor] = start) -> Learner:
            learner = of.network(member, examples.n_trials)
            set_person(_decoder(learner, of.modality), start)
            learner.objective.requires_grad_(False)
            learn_person_only(_decoder(learner, of.modality))
            return learner

        learner, n_steps = learn(pupil, of.lesson(of.setting, person, rows, target_N, member, FASTER))
        found.append(person_row(_decoder(learner, of.modality)))
        steps.append(n_steps)
    return replace(person, n_trials=len(rows), steps=tuple(steps), rows=tuple(found))


def from_scratch(of: Newcomer, person: Person, rows: Index, target_N: Index, path: Path) -> list[Learner]:
    """The same decoder trained on these trials alone, likewise; kept in (or read from) `path`_member0, ..."""
    setting, learners = of.setting, []
    shapes = {name: replace(shape, n_people=1) for name, shape in setting.shapes.items()}
    alone = replace(setting, sources=setting.sources.with_people({of.modality: {of.name: 0}}), shapes=shapes)
    for member in range(setting.recipe.train.members):

        def fresh(examples: Examples, member: int = member) -> Learner:
            objective = of.network(member, 1).objective.requires_grad_(False)  # the images' place stays what it is
            shapes = shapes_of(alone, (of.modality,), objective)
            torch.manual_seed(seed_of(*of.key(member, len(rows))))
            device = setting.sources.of[of.modality].epochs.device
            return build_learner(shapes, objective, setting.recipe, examples.n_trials, Group()).to(device)

        def pupil(examples: Examples, member: int = member, fresh: Callable[..., Learner] = fresh) -> Learner:
            learner, key = fresh(examples), of.key(member, len(rows))
            begin_fit(learner, of.data(person.scalers), examples, key, setting.cells)
            return learner

        file = path.with_name(f"{path.name}_member{member}.safetensors")
        lesson = of.lesson(alone, person, rows, target_N, member, 1.0)
        if not file.exists():
            save_atomically(learn(pupil, lesson)[0].state_dict(), file)
        learners.append(load_learner(fresh(lesson.examples(np.ones(len(rows), bool))), file))
    return learners


def linear_from_scratch(of: Newcomer, models: FoldModels, person: Person, rows: Index, target_N: Index) -> Any:
    """The linear baseline of these trials alone, its bin width as chosen for all; None where a class lacks trials."""
    chosen: Baseline | None = models.baselines[of.modality].get(LINEAR)
    if chosen is None:
        return None
    x_NCT = of.data(person.scalers)[of.modality].read(rows).cpu().numpy()
    sample = Sample(x_NCT, np.zeros(len(rows), np.int64), target_N)
    objective = plain_objective(of.setting.task, of.setting.recipe, target_N)
    shape = replace(of.setting.shapes[of.modality], n_people=1)
    return fit_baseline(LINEAR, sample, replace(chosen.choice, pooled=True, penalty=None), shape, objective)


def met(models: FoldModels, person: Person) -> FoldModels:
    """The decoders as they are for one person: under their scalers, with what is known of them."""
    networks = copy.deepcopy(models.networks)
    [(modality, data)] = models.data.items()
    for members in networks.values():
        for member, row in zip(members, person.rows, strict=True):
            set_person(_decoder(member, modality), row)
    own = ScaledEpochs(data.epochs, person.scalers, OWN, models.setting.recipe.view)
    return replace(models, networks=networks, data={modality: own})


def _decoder(learner: Learner, modality: str) -> Any:
    assert isinstance(learner.network, Network)
    return learner.network.decoder(modality)


@dataclass(frozen=True)
class Lesson:
    """Trials to learn, which fold of the cross-validation each is in, and the random key."""

    setting: Setting
    data: Mapping[str, ScaledEpochs]
    rows: Index
    target_N: Index
    fold_N: Index
    key: tuple[int, ...]
    learning_rate: float

    def examples(self, at: Any) -> Examples:
        """Some of the trials, to train on."""
        [name] = self.data
        return self.setting.examples({name: self.rows[at]}, {name: self.target_N[at]})

    def asked(self, at: Any) -> Asked:
        """Some of the trials, to decode."""
        [name] = self.data
        return self.setting.single(name, self.rows[at], self.target_N[at])


def learn(begin: Callable[[Examples], Learner], lesson: Lesson) -> tuple[Learner, int]:
    """Train on all trials for as many steps as are best for trials left out; the learner and the steps.

    `begin` makes a learner of some trials, what may move with a gradient. All folds go the same number of steps before
    their answers, taken together, are judged.
    """
    folds = np.unique(lesson.fold_N)
    if len(folds) < 2:
        return begin(lesson.examples(lesson.fold_N >= 0)).eval(), 0
    pupils = [_Pupil(begin, lesson, lesson.fold_N != fold) for fold in folds]
    asked = [lesson.asked(lesson.fold_N == fold) for fold in folds]
    losses: list[float] = []
    for k, stop in enumerate(n for n in STEPS if n <= (lesson.setting.recipe.train.steps or FEWEST_STEPS)):
        answers = [pupil.after(stop, part) for pupil, part in zip(pupils, asked, strict=True)]
        out_ND, target_N = (torch.cat(parts) for parts in zip(*answers, strict=True))
        losses.append(pupils[0].averaged.objective.judge(out_ND, target_N).loss)
        if int(np.argmin(losses)) <= k - PATIENCE:
            break
    best = STEPS[int(np.argmin(losses))]
    last = _Pupil(begin, lesson, lesson.fold_N >= 0)
    last.go_on(best)
    return last.averaged, best


class _Pupil:
    """A learner on its way through some of a lesson's trials, and the running average of its weights."""

    def __init__(self, begin: Callable[[Examples], Learner], lesson: Lesson, at: Any) -> None:
        examples, settings = lesson.examples(at), lesson.setting.recipe.train
        self._learner = begin(examples).train()
        self.averaged = copy.deepcopy(self._learner).eval()
        size = batch_size(settings, len(examples), Group())
        self._feed = Feed(lesson.data, examples, settings, size, lesson.key, Group())
        self._optimizer = self._learner.optimizer(lesson.learning_rate, settings.weight_decay)
        self._lesson, self._step, self._ema = lesson, 0, settings.ema

    def go_on(self, stop: int) -> None:
        """Train until that many steps are made."""
        moving = [p for p in self._learner.parameters() if p.requires_grad]
        for _ in range(self._step, stop):
            for group in self._optimizer.param_groups:
                group["lr"] = self._lesson.learning_rate * min(1.0, (self._step + 1) / WARM_UP_STEPS)
            torch.manual_seed(seed_of(*self._lesson.key, 1, self._step))
            self._optimizer.zero_grad()
            torch.autograd.backward(self._learner(self._feed.make(self._step), 1.0))
            torch.nn.utils.clip_grad_norm_(moving, LARGEST_GRADIENT)
            self._optimizer.step()
            self._average()
            self._step += 1

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self._ema, (2 + self._step) / (11 + self._step))
        for mean, now in zip(self.averaged.parameters(), self._learner.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)

    def after(self, stop: int, asked: Asked) -> tuple[Tensor, Tensor]:
        """Outputs (N, D) and targets (N,) after that many steps."""
        self.go_on(stop)
        return outputs(self.averaged, asked, self._lesson.data, Group())
