"""The search: trials over what is there, by Ray Tune; the only door to ray beside `trial`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

import ray
from ray import tune as ray_tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search import BasicVariantGenerator

from synapse_diffusion.config import Recipe, TuneSettings, Values
from synapse_diffusion.errors import MissingError, StoppedError
from synapse_diffusion.tune.machine import Machine, Node, Plan, this_machine
from synapse_diffusion.tune.results import Row, Status, shown
from synapse_diffusion.tune.space import decode, is_whole, n_steps, own_point
from synapse_diffusion.tune.trial import WHOLE, WORST, Job, run_trial
from synapse_diffusion.types import Progress, Say

RETRIES: Final = 4  # of a trial whose node or process is lost; it goes on from its checkpoint
GRANT: Final = 2**20  # bytes that a trial books, where its processes book the processors
STORE_BYTES: Final = 2**27  # of Ray's object store; trials read memory-mapped files, not this


@contextmanager
def cluster(address: str) -> Iterator[Machine]:
    """Ray at this address, or for this command alone on this machine, behind a token; what it holds.

    Raises `MissingError` where nothing answers.
    """
    about: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    machine = this_machine()
    try:
        if address:
            ray.init(address, **about)
            alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            nodes = tuple(Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in alive)
            machine = Machine(nodes, address)
        else:
            [here] = machine.nodes
            ray.init(
                "local", num_cpus=here.cpus, num_gpus=here.gpus, include_dashboard=False,
                object_store_memory=STORE_BYTES, _node_ip_address="127.0.0.1", **about,
            )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        token = "; RAY_AUTH_MODE and RAY_AUTH_TOKEN must be the cluster's" if address else ""
        raise MissingError(f"no Ray cluster at {address or 'this machine'}: {reason}{token}") from None
    try:
        yield machine
    finally:
        ray.shutdown()


def search(recipe: Recipe, job: Job, say: Say, progress: Progress) -> list[Row]:
    """Run all trials, or those that an earlier call has not finished; one row a trial.

    Raises `StoppedError` where it was asked to end before.
    """
    plan, folder = job.plan, Path(job.folder)
    trainable = ray_tune.with_resources(ray_tune.with_parameters(run_trial, job=job), _resources(plan))
    path = folder / "ray"
    if ray_tune.Tuner.can_restore(path):
        say("an earlier search is continued; its finished trials stand")
        tuner = ray_tune.Tuner.restore(str(path), trainable, resume_errored=True)
    else:
        tuner = ray_tune.Tuner(
            trainable,
            param_space=_domains(recipe) if recipe.tune.search == "random" else None,
            tune_config=ray_tune.TuneConfig(
                metric="loss", mode="min", num_samples=recipe.tune.trials, max_concurrent_trials=plan.at_once,
                search_alg=_search(recipe, plan.at_once), scheduler=_scheduler(recipe.tune, job), reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                name=path.name, storage_path=str(folder), verbose=0,
                failure_config=ray_tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_Teller()],
            ),
        )  # fmt: skip
    heard = _Heard(recipe, say, progress)
    LISTENER.set(heard)
    with warnings.catch_warnings():  # of Optuna, where a continued trial tells what it had told before
        warnings.filterwarnings("ignore", "The reported value is ignored")
        tuner.fit()
    rows = [_row(k, trial, recipe.tune.space, trial.status) for k, trial in _numbered(heard.trials)]
    if len(rows) < recipe.tune.trials or any(row.status == "unfinished" for row in rows):
        raise StoppedError(f"{folder}: asked to end; the same command goes on from there")
    return rows


def _resources(plan: Plan) -> ray_tune.PlacementGroupFactory:
    """What one trial books; where several processes train it, they book the rest."""
    if plan.processes > 1:
        return ray_tune.PlacementGroupFactory([{"memory": GRANT}])
    return ray_tune.PlacementGroupFactory([{"CPU": plan.cpus, "GPU": plan.gpus}])


def _domains(recipe: Recipe) -> dict[str, Any]:
    """Ray's distributions of the codes of a point."""
    return {key: _domain(values, whole=is_whole(recipe, key)) for key, values in recipe.tune.space.items()}


def _domain(values: Values, *, whole: bool) -> Any:
    if values.choices:
        return ray_tune.choice(list(range(len(values.choices))))
    if values.step is not None:
        return ray_tune.randint(0, n_steps(values) + 1)
    low, high = values.low, values.high
    if whole:
        assert high is not None
        return ray_tune.lograndint(low, high + 1) if values.log else ray_tune.randint(low, high + 1)
    return ray_tune.loguniform(low, high) if values.log else ray_tune.uniform(low, high)


def _search(recipe: Recipe, at_once: int) -> Any:
    """TPE or random draws; the recipe's own values come first where the space holds them.

    Ray limits TPE itself to `max_concurrent_trials`; random draws it does not.
    """
    own = own_point(recipe)
    first = None if own is None else [own]
    if recipe.tune.search == "random":
        return BasicVariantGenerator(first, max_concurrent=at_once, random_state=recipe.tune.seed)
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = OptunaSearch.convert_search_space(_domains(recipe))
    return OptunaSearch(space, metric="loss", mode="min", points_to_evaluate=first, seed=recipe.tune.seed)


def _scheduler(settings: TuneSettings, job: Job) -> Any:
    return _Asking(settings, job) if settings.stopping else FIFOScheduler()


class _Asking(AsyncHyperBandScheduler):
    """ASHA that asks a trial to end by a file, where Ray would kill it: several processes then end together, and give
    back what they hold."""

    def __init__(self, settings: TuneSettings, job: Job) -> None:
        grace = max(1, round(settings.grace * WHOLE))
        super().__init__("progress", max_t=WHOLE, grace_period=grace, reduction_factor=settings.reduction)
        self._job = job

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Ray asks whether the trial goes on."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision == self.STOP and result["progress"] < WHOLE:
            mark = self._job.mark(trial.trial_id)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        return str(self.CONTINUE)


class _Heard:
    """Says how each trial ended, and keeps them all."""

    def __init__(self, recipe: Recipe, say: Say, progress: Progress) -> None:
        self._space, self._total = recipe.tune.space, recipe.tune.trials
        self._say, self._progress = say, progress
        self.trials: list[Trial] = []

    def ended(self, trials: list[Trial], trial: Trial, status: str) -> None:
        """One is done, or failed for good; Ray notes that afterwards."""
        number = next(k for k, other in _numbered(trials) if other is trial)
        row = _row(number, trial, self._space, status)
        loss = f"{row.status}, {row.note}" if row.loss is None else f"loss {row.loss:.4f}"
        early = f", ended at {row.share:.0%} of its steps" if row.status == "ended" else ""
        values = ", ".join(f"{key} = {shown(value)}" for key, value in row.values.items())
        self._say(f"trial {row.number}: {loss}{early}; {values}")
        self._progress("trials", sum(other.is_finished() for other in trials), self._total)


LISTENER: ContextVar[_Heard] = ContextVar("LISTENER")
"""Ray keeps callbacks in files of its own and takes them from there when a search is continued; who listens is not
kept."""


class _Teller(ray_tune.Callback):
    """From Ray to who listens."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """One is done, or was ended."""
        LISTENER.get().ended(trials, trial, Trial.TERMINATED)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """One failed for good."""
        LISTENER.get().ended(trials, trial, Trial.ERROR)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """All are done, or the search was ended."""
        LISTENER.get().trials = trials


def _numbered(trials: list[Trial]) -> list[tuple[int, Trial]]:
    """Trials in the order in which they were made, from 1; a continued search lists them in another."""
    return list(enumerate(sorted(trials, key=lambda trial: int(trial.experiment_tag.split("_")[0])), 1))


def _row(number: int, trial: Trial, space: dict[str, Values], is_now: str) -> Row:
    last = trial.last_result or {}
    loss = last.get("loss", WORST)
    error = trial.get_error() if is_now == Trial.ERROR else None  # it also keeps those that were got over
    status: Status
    if is_now not in (Trial.TERMINATED, Trial.ERROR):
        status = "unfinished"
    elif error or loss >= WORST:
        status = "failed"
    else:
        status = "finished" if last.get("ended") else "ended"
    note = str(last.get("note", "")) or (str(error).strip().splitlines()[-1] if error else "")
    return Row(
        number=number,
        status=status,
        loss=loss if loss < WORST else None,
        score=last.get("score"),
        share=last.get("progress", 0) / WHOLE,
        seconds=last.get("time_total_s", 0.0),
        node=last.get("node", ""),
        note=note,
        values=decode(space, trial.config),
    )
