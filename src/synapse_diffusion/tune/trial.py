"""What a trial is: the recipe with some other values, judged on validation; in one process or in several."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import ray
from ray import train as ray_train
from ray import tune as ray_tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from synapse_diffusion.config import Recipe, parse_recipe
from synapse_diffusion.errors import MissingError, StoppedError, SynapseError
from synapse_diffusion.train import judge
from synapse_diffusion.tune.machine import Plan
from synapse_diffusion.tune.space import decode, with_values

WHOLE: Final = 1000
"""A trial's progress when it is done."""
WORST: Final = 1e30
"""Loss of a trial that could not be trained: schedulers and searches want numbers."""
ASKING: Final = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
"""Ray Train takes one report of a group each time it asks for its health: every check of a fit would wait 2 s."""
Metrics = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What all trials share; plain values, which go to other machines."""

    recipe: Mapping[str, Any]
    """A settings tree, with whole paths."""
    name: str
    command: str
    folder: str
    plan: Plan

    def mark(self, trial: str) -> Path:
        """The file that asks a trial to end."""
        return Path(self.folder) / "trials" / trial / "end"

    def recipe_of(self, point: Mapping[str, Any], trial: str) -> Recipe:
        """The trial's own recipe; its run lies in a folder of the trial's name."""
        base = parse_recipe(self.recipe)
        recipe = with_values(base, decode(base.tune.space, point))
        execution = recipe.execution.model_copy(
            update={
                "device": "auto" if self.plan.gpus else "cpu",
                "threads": self.plan.cpus,
                "processes": self.plan.processes,
                "verify_stores": False,  # the search has done it
            }
        )
        paths = recipe.paths.model_copy(update={"runs": str(Path(self.folder) / "trials" / trial)})
        return recipe.model_copy(update={"execution": execution, "paths": paths})


def run_trial(point: Metrics, job: Job) -> None:
    """Train and report, until it is done or to end. What the data refuse is reported as the worst loss."""
    trial = ray_tune.get_context().get_trial_id()
    try:
        if job.plan.processes == 1:
            judge_and_report(point, job, trial, ray_tune.report)
        else:
            _train_together(point, job, trial)
    except MissingError:  # a full disk says nothing about the settings: tried again, now or by the next call
        raise
    except SynapseError as error:
        ray_tune.report({"loss": WORST, "progress": WHOLE, "ended": False, "note": " ".join(str(error).split())})


def judge_and_report(point: Metrics, job: Job, trial: str, tell: Callable[[Metrics], None]) -> None:
    """Tell loss and progress at every check; unless it is asked to end before, at last that it ended, and its score."""
    node, mark = ray.get_runtime_context().get_node_id()[:8], job.mark(trial)

    def report(share: float, loss: float) -> bool:
        progress = min(round(share * WHOLE), WHOLE - 1)
        tell({"loss": min(loss, WORST), "progress": progress, "ended": False, "node": node, "note": ""})
        return not mark.exists()

    try:
        curve = judge(job.recipe_of(point, trial), job.name, job.command, report)
    except StoppedError:
        return
    tell({**summary(curve), "progress": WHOLE, "ended": True, "node": node, "note": ""})


def summary(curve: pd.DataFrame) -> Metrics:
    """Mean over fits of the best validation loss, and of the score at that check."""
    fits = [fit for _, fit in curve.groupby(["fold", "member"])]
    best = [fit.iloc[int(fit["validation_loss"].to_numpy().argmin())] for fit in fits]
    loss, score = (float(np.mean([row[f"validation_{what}"] for row in best])) for what in ("loss", "score"))
    return {"loss": loss, "score": score}


def _train_together(point: Metrics, job: Job, trial: str) -> None:
    """The trial in several processes that Ray Train starts; they are one group (`parallel.session`)."""
    os.environ.setdefault(*ASKING)
    resources = {"CPU": float(job.plan.cpus)} | ({"GPU": 1.0} if job.plan.gpus else {})
    trainer = TorchTrainer(
        partial(_in_group, point=point, job=job, trial=trial),
        scaling_config=ray_train.ScalingConfig(
            num_workers=job.plan.processes, use_gpu=bool(job.plan.gpus), resources_per_worker=resources
        ),
        run_config=ray_train.RunConfig(
            name=trial, storage_path=str(Path(job.folder) / "groups"), callbacks=[TuneReportCallback()]
        ),
    )
    try:
        trainer.fit()
    except ray_train.WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if isinstance(failure, SynapseError):
                raise failure from None
        raise


def _in_group(point: Metrics, job: Job, trial: str) -> None:
    judge_and_report(point, job, trial, ray_train.report)
