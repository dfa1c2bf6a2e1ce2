"""Which jobs a recipe needs, after which others each begins, and the `sbatch` line of each. No side effects."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synapse_diffusion.config import Recipe
from synapse_diffusion.launch.cluster import Cluster
from synapse_diffusion.pipeline import stages_of

SCRIPTS: Final = Path(__file__).parent / "scripts"
NEEDS: Final[Mapping[str, Sequence[Sequence[str]]]] = {
    "embed": [["convert"]],
    "train": [["embed", "convert"]],
    "generator": [["embed", "convert"]],
    "reconstruct": [["train"], ["generator"]],
    "evaluate": [["reconstruct", "train"]],  # both write the run's scores
    "report": [["evaluate", "reconstruct", "train"]],
}
"""Of each stage what must be done before: of every list the first that is to be done."""


@dataclass(frozen=True)
class Job:
    """One script of `slurm/` with its arguments."""

    stage: str
    script: str
    arguments: tuple[str, ...]

    def after(self, others: Collection[str]) -> list[str]:
        """The stages that it waits for, of these that are or will be in the queue."""
        found = (next((one for one in any_of if one in others), "") for any_of in NEEDS.get(self.stage, ()))
        return [stage for stage in found if stage]


def chain(recipe: Recipe, source: str, overrides: Sequence[str]) -> list[Job]:
    """All jobs that lead from recordings to a report, pictures included where images are retrieved."""
    modality = recipe.data.modality
    decoder = "fusion" if modality == "comb" else modality
    scripts = {"train": f"train_{decoder}.sh", "generator": "train_generator.sh"}
    arguments = (source, *(part for override in overrides for part in ("--set", override)))
    stages: list[str] = list(stages_of(recipe, pictures=recipe.target.task == "retrieve"))
    stages.sort(key=lambda stage: (stage == "report", stage == "evaluate"))
    jobs = []
    for stage in stages:
        more = (modality,) if stage == "convert" else ()
        jobs.append(Job(stage, scripts.get(stage, f"{stage}.sh"), (*more, *arguments)))
    return jobs


def sbatch_line(
    job: Job, name: str, cluster: Cluster, logs: Path, ids: Mapping[str, str], others: Sequence[str] = ()
) -> list[str]:
    """The command that submits a job; `ids` of the jobs before it, by stage, where they are in the queue.

    A job whose predecessor failed is taken out of the queue. `others`: jobs that must have ended, however.
    """
    array = job.stage == "convert" and job.arguments[0] != "comb"
    exports = {"SYNAPSE_SLURM": str(SCRIPTS), "SYNAPSE_PYTHON": sys.executable, "SYNAPSE_SETUP": cluster.setup}
    line = ["sbatch", "--parsable", f"--job-name={name}-{job.stage}"]
    line.append(f"--output={logs}/%x-{'%A_%a' if array else '%j'}.out")
    line.append("--export=" + ",".join(["ALL", *(f"{key}={value}" for key, value in exports.items() if value)]))
    before = {"afterok": [ids[stage] for stage in job.after(ids)], "afterany": others}
    if wanted := [":".join([kind, *found]) for kind, found in before.items() if found]:
        line += [f"--dependency={','.join(wanted)}", "--kill-on-invalid-dep=yes"]
    if job.stage == "convert" and not array:
        line.append("--array=1")
    return [*line, *cluster.of(job.stage), str(SCRIPTS / job.script), *job.arguments]
