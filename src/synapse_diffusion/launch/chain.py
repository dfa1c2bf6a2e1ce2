"""Which jobs a recipe needs, after which others each begins, and the `sbatch` line of each. No side effects."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synapse_diffusion.config import Recipe
from synapse_diffusion.launch.cluster import Cluster

SCRIPTS: Final = Path(__file__).parent / "scripts"


@dataclass(frozen=True)
class Job:
    """One script of `slurm/`, with its arguments, after other jobs of the chain (by stage)."""

    stage: str
    script: str
    arguments: tuple[str, ...]
    after: tuple[str, ...] = ()


def chain(recipe: Recipe, source: str, overrides: Sequence[str]) -> list[Job]:
    """All jobs that lead from recordings to a report: convert -> embed -> train, generator -> reconstruct -> evaluate
    -> report.

    Vectors of images, the generator and pictures only where images are retrieved; no generator where pretrained
    pipelines draw. The prior is fitted in `reconstruct`.
    """
    modality, retrieves = recipe.data.modality, recipe.target.task == "retrieve"
    decoder = "fusion" if modality == "comb" else modality
    arguments = (source, *(part for override in overrides for part in ("--set", override)))
    jobs = [Job("convert", "convert.sh", (modality, *arguments))]
    if retrieves and not recipe.target.table:
        jobs.append(Job("embed", "embed.sh", arguments, ("convert",)))
    ready = (jobs[-1].stage,)
    jobs.append(Job("train", f"train_{decoder}.sh", arguments, ready))
    if retrieves:
        own = recipe.pretrained.pipeline == "none"
        jobs += [Job("generator", "train_generator.sh", arguments, ready)] * own
        jobs.append(Job("reconstruct", "reconstruct.sh", arguments, ("train", *["generator"] * own)))
    jobs.append(Job("evaluate", "evaluate.sh", arguments, (jobs[-1].stage,)))
    jobs.append(Job("report", "report.sh", arguments, ("evaluate",)))
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
    before = {"afterok": [ids[stage] for stage in job.after if stage in ids], "afterany": others}
    if wanted := [":".join([kind, *found]) for kind, found in before.items() if found]:
        line += [f"--dependency={','.join(wanted)}", "--kill-on-invalid-dep=yes"]
    if job.stage == "convert" and not array:
        line.append("--array=1")
    return [*line, *cluster.of(job.stage), str(SCRIPTS / job.script), *job.arguments]
