"""Jobs: what is submitted, and a real Slurm of two nodes on loopback that runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tomli_w
import torch
from safetensors.torch import load_file

from conftest import SMALL, small, small_meg, small_pairs
from slurm_engine import cluster, missing
from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import MissingError, RunError, SettingsError
from synapse_diffusion.launch.chain import SCRIPTS, chain, sbatch_line
from synapse_diffusion.launch.cluster import load_cluster
from synapse_diffusion.launch.queue import State, read_record, write_record
from synapse_diffusion.launch.status import job_line
from synapse_diffusion.launch.submit import submit

COMMAND = [sys.executable, "-m", "synapse_diffusion"]
PATIENCE_S = 420
PICTURES = [
    "target.task=retrieve", "target.layers=colour", "train.steps=6", "train.checks=2", "train.refit=false",
    "generator.size=16", "generator.low_side=4", "generator.low_components=8", "generator.components=6",
    "generator.width=16", "generator.depth=1", "generator.heads=2", "generator.steps=12", "generator.checks=3",
    "generator.batch=16", "reconstruct.sampling_steps=3", "reconstruct.k_repeats=[0]",
]  # fmt: skip


def stages(recipe: Recipe) -> dict[str, tuple[str, tuple[str, ...]]]:
    jobs = chain(recipe, "x.toml", ())
    names = [job.stage for job in jobs]
    return {job.stage: (job.script, tuple(job.after(names))) for job in jobs}


def test_what_a_recipe_needs_in_which_order(tmp_path: Path) -> None:
    convert = {"convert": ("convert.sh", ())}
    assert stages(small_meg(tmp_path)) == {
        **convert,
        "train": ("train_meg.sh", ("convert",)),
        "evaluate": ("evaluate.sh", ("train",)),
        "report": ("report.sh", ("evaluate",)),
    }
    assert stages(small_pairs(tmp_path))["train"] == ("train_fusion.sh", ("convert",))
    assert stages(small(tmp_path, *PICTURES)) == {
        **convert,
        "embed": ("embed.sh", ("convert",)),
        "train": ("train_eeg.sh", ("embed",)),
        "generator": ("train_generator.sh", ("embed",)),
        "reconstruct": ("reconstruct.sh", ("train", "generator")),
        "evaluate": ("evaluate.sh", ("reconstruct",)),
        "report": ("report.sh", ("evaluate",)),
    }
    assert "embed" not in stages(small(tmp_path, *PICTURES, "target.table=somewhere"))
    assert stages(small_pairs(tmp_path, *PICTURES))["reconstruct"][1] == ("train", "generator")
    pretrained = stages(small(tmp_path, *PICTURES, "pretrained.pipeline=unclip", "pretrained.weights=somewhere"))
    assert "generator" not in pretrained
    assert pretrained["reconstruct"][1] == ("train",)
    alone = {job.stage: job for job in chain(small(tmp_path, *PICTURES), "x.toml", ())}["evaluate"]
    assert alone.after({"train"}) == ["train"]  # no pictures are asked for, but a decoder is being trained
    for recipe in (small(tmp_path, *PICTURES), small_meg(tmp_path), small_pairs(tmp_path)):
        assert all((SCRIPTS / job.script).is_file() for job in chain(recipe, "x.toml", ()))


def test_the_line_that_submits_a_job(tmp_path: Path) -> None:
    (tmp_path / "setup.sh").touch()
    (tmp_path / "cluster.toml").write_text(
        'setup = "setup.sh"\n[all]\naccount = "lab1"\npartition = "standard"\n'
        '[train]\npartition = "gpu"\nnodes = 2\nexclusive = true\nmail-type = false\n'
    )
    site = load_cluster(tmp_path / "cluster.toml", ["train.nodes=4", "time=08:00:00", "train.overcommit=true"])
    jobs = {job.stage: job for job in chain(small(tmp_path), "study.toml", ["train.seed=1"])}
    line = sbatch_line(jobs["train"], "study", site, Path("runs/slurm"), {"convert": "12"})
    exports = f"--export=ALL,SYNAPSE_SLURM={SCRIPTS},SYNAPSE_PYTHON={sys.executable},SYNAPSE_SETUP={tmp_path}/setup.sh"
    assert line == [
        "sbatch", "--parsable", "--job-name=study-train", "--output=runs/slurm/%x-%j.out", exports,
        "--dependency=afterok:12", "--kill-on-invalid-dep=yes",
        "--account=lab1", "--partition=gpu", "--time=08:00:00", "--nodes=4", "--exclusive", "--overcommit",
        str(SCRIPTS / "train_eeg.sh"), "study.toml", "--set", "train.seed=1",
    ]  # fmt: skip
    line = sbatch_line(jobs["convert"], "study", site, Path("runs/slurm"), {})
    assert "--output=runs/slurm/%x-%A_%a.out" in line
    assert not [part for part in line if part.startswith(("--dependency", "--array", "--nodes"))]
    assert "--dependency=afterok:12,afterany:7:8" in sbatch_line(
        jobs["train"], "study", site, Path("x"), {"convert": "12"}, ["7", "8"]
    )
    index = chain(small_pairs(tmp_path), "pairs.toml", ())[0]
    assert "--array=1" in sbatch_line(index, "pairs", site, Path("runs/slurm"), {})


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ('[trian]\nnodes = 2\n', [], r"\[trian\]: no such stage; nearest is train"),
        ("nodes = 2\n", [], r"nodes = 2: options stand in a table"),
        ("[train]\nnodes = [1, 2]\n", [], r"train.nodes = \[1, 2\]: give text, a number, true or false"),
        ('[all]\ndependency = "afterok:1"\n', [], "all.dependency: give a long option of sbatch, but none of"),
        ("[all\n", [], "not valid TOML"),
        ('setup = "nosuch.sh"\n', [], r"setup: there is no file .*nosuch\.sh; give one"),
        ("", ["gpus"], "--slurm gpus: give it as option=value"),
        ("", ["train.array=1-3"], r"--slurm: train\.array: tasks would write one result; only convert"),
        ("[all]\narray = '1-3'", [], r"cluster\.toml: all\.array: tasks would write one result"),
        ("", ["mem=8G"], r"--slurm: all\.mem: the scripts ask for memory by mem-per-cpu; give that"),
        ("", ["train.requeue=false"], r"--slurm: train\.requeue: give a long option of sbatch, but none of"),
        ("", ["evalaute.time=1"], r"--slurm: \[evalaute\]: no such stage; nearest is evaluate"),
    ],
)  # fmt: skip
def test_wrong_options_are_one_line(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as raised:
        load_cluster(path, overrides)
    assert "\n" not in str(raised.value).split("not valid TOML")[0]
    with pytest.raises(SettingsError, match=r"nosuch\.toml: No such file"):
        load_cluster(tmp_path / "nosuch.toml", ())


def test_without_slurm_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match=r"convert: sbatch: not found; .* run RECIPE\); nothing was submitted"):
        submit("all", "demo", [], load_cluster(None, ()), print)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(MissingError, match=r"^file/runs/slurm: cannot be written: Not a directory; set paths\.runs"):
        submit("all", "demo", ["paths.runs=file/runs"], load_cluster(None, ()), print)


def test_a_recipe_stands_for_its_run(tmp_path: Path) -> None:
    python, recorded = tmp_path / "python", tmp_path / "run"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    recorded.mkdir()
    (recorded / "recipe.toml").touch()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    environment["SYNAPSE_PYTHON"] = str(python)

    def passed_on(script: str, *given: str) -> str:
        done = subprocess.run([SCRIPTS / script, *given], env=environment, cwd=tmp_path, capture_output=True, text=True)
        return done.stdout.strip().removeprefix("-m synapse_diffusion ") or done.stderr.strip()

    for stage in ("reconstruct", "evaluate", "report"):
        assert passed_on(f"{stage}.sh", "run", "--x=1") == f"{stage} run --x=1"
        one = passed_on(f"{stage}.sh", "r.toml", "--set", "train.seed=1", "--set=labels.classes=a,body part")
        assert one == f"run r.toml --set train.seed=1 --set=labels.classes=a,body part --from {stage} --until {stage}"
        assert passed_on(f"{stage}.sh").endswith("give a RUN or a RECIPE")


def test_states_in_words() -> None:
    assert job_line([]) == "ended; Slurm no longer knows it"
    assert job_line([State("RUNNING", elapsed="1:05")]) == "RUNNING, for 1:05"
    assert job_line([State("PENDING", "Dependency")]) == "PENDING, waits for Dependency"
    away = "ReqNodeNotAvail, UnavailableNodes:n3"
    assert job_line([State("PENDING", away)]) == (
        f"PENDING, no node that it could use is up ({away}): wait, or take another partition"
    )
    tasks = [State("COMPLETED"), State("COMPLETED"), State("FAILED", "NonZeroExitCode")]
    assert job_line(tasks) == "2 COMPLETED, 1 FAILED"


def test_the_record_is_whole_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert read_record(path) == {}
    write_record(path, {"train": "12"})
    assert read_record(path) == {"train": "12"}
    path.write_text(path.read_text()[:-6])
    with pytest.raises(RunError, match="damaged"):
        read_record(path)


def test_scripts_name_no_site() -> None:
    """And are bash; without Slurm each runs its command here and now."""
    sites = {"--account", "--partition", "--qos", "--gres", "--constraint", "--nodelist", "--reservation", "--chdir"}
    for script in sorted(SCRIPTS.glob("*.sh")):
        subprocess.run(["bash", "-n", script], check=True)
        text = script.read_text()
        assert not sites & {found.partition("=")[0] for found in re.findall(r"^#SBATCH (\S+)", text, re.M)}
        assert not re.search(r"^\s*module |/(home|scratch|nfs|sw)/", text, re.M)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    for name, arguments in (("convert", ["eeg"]), ("train_meg", []), ("evaluate", [])):
        done = subprocess.run(
            [SCRIPTS / f"{name}.sh", *arguments, "nosuch.toml"], env={**environment, "SYNAPSE_PYTHON": sys.executable},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith("error: nosuch.toml: no such recipe")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A real Slurm, and the environment to use it from; ended with the tests."""
    if lacking := missing():
        pytest.skip(f"Slurm is not installed ({', '.join(lacking)} missing): apt-get install slurm-wlm")
    with cluster(tmp_path_factory.mktemp("slurm") / "engine") as environment:
        yield {**environment, "OMP_NUM_THREADS": "1", "SYNAPSE_PYTHON": sys.executable}


@pytest.fixture(scope="module")
def site(slurm: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and three recordings, converted by one process."""
    folder = tmp_path_factory.mktemp("site")
    paths = {name: name for name in ("bids", "stores", "runs", "embeddings")}
    tree = {**SMALL, "paths": paths, "simulate": {**SMALL["simulate"], "people": 3}}
    (folder / "small.toml").write_text(tomli_w.dumps(tree))
    (folder / "slurm").symlink_to(SCRIPTS)
    for command in (("simulate",), ("convert", "eeg")):
        said(slurm, folder, *COMMAND, *command, "small.toml")
    return folder


def said(slurm: Mapping[str, str], cwd: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=slurm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refused(slurm: Mapping[str, str], cwd: Path, *arguments: str) -> str:
    """What goes wrong is one line, and no success."""
    done = subprocess.run([*COMMAND, *arguments], cwd=cwd, env=slurm, capture_output=True, text=True, check=False)
    assert done.returncode in (2, 3)
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def sbatch(slurm: Mapping[str, str], cwd: Path, *arguments: str) -> str:
    return said(slurm, cwd, "sbatch", "--parsable", "--output=job-%j.out", *arguments)


def wait_until(there: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def ended(slurm: Mapping[str, str], cwd: Path, *jobs: str) -> None:
    """Wait until jobs have ended, and as they should."""
    squeue = ["squeue", "--noheader", "--states=all", "--array", f"--jobs={','.join(jobs)}", "--format=%T"]
    states: set[str] = set()

    def over() -> bool:
        states.clear()
        states.update(said(slurm, cwd, *squeue).split())
        time.sleep(0.2)
        return not states & {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED"}

    wait_until(over, f"jobs {jobs} did not end")
    assert states == {"COMPLETED"}, "\n".join(path.read_text() for path in cwd.rglob("*.out"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_an_array_converts_as_one_process(slurm: Mapping[str, str], site: Path) -> None:
    """Two tasks for three recordings; the same command again finds nothing to do."""
    arguments = ["--array=1-2", "slurm/convert.sh", "eeg", "small.toml", "--set", "paths.stores=array"]
    ended(slurm, site, sbatch(slurm, site, *arguments))
    assert len(list((site / "array").rglob("manifest.json"))) == 3
    assert contents(site / "array") == contents(site / "stores")
    job = sbatch(slurm, site, *arguments)
    ended(slurm, site, job)
    logs = "".join(path.read_text() for path in site.glob("job-*.out"))
    assert "2 of 2 recordings are converted already" in logs


@pytest.mark.slow
def test_two_nodes_train_as_one_process(slurm: Mapping[str, str], site: Path) -> None:
    """srun, torchrun and a rendezvous over two nodes: losses within 1e-5, weights within 1e-4."""
    few = [
        "small.toml", "--set", "train.steps=20", "--set", "train.checks=20", "--set", "train.patience=20",
        "--set", "train.refit=false", "--set", "train.learning_rate=0.0005",
    ]  # fmt: skip
    job = sbatch(slurm, site, "--nodes=2", "slurm/train_eeg.sh", *few, "--set", "paths.runs=two")
    said(slurm, site, *COMMAND, "train", "eeg", *few, "--set", "paths.runs=one")
    ended(slurm, site, job)
    assert (site / f"job-{job}.out").read_text().count("trained: ") == 1  # one speaks for both
    one, two = (next((site / name).glob("small-*")) for name in ("one", "two"))
    assert one.name == two.name
    curves = [pd.read_csv(run / "curve.tsv", sep="\t") for run in (one, two)]
    assert len(curves[0]) == 20
    for column in ("train_loss", "validation_loss"):
        assert np.abs(curves[0][column] - curves[1][column]).max() < 1e-5, column
    a, b = (load_file(run / "checkpoints" / "fold0_member0.safetensors") for run in (one, two))
    assert all(torch.allclose(value, b[key], atol=1e-4) for key, value in a.items())


@pytest.mark.slow
def test_at_its_time_limit_a_job_goes_back_and_ends_with_the_same_bits(slurm: Mapping[str, str], site: Path) -> None:
    """Slurm's own warning reaches trainers on two nodes. They are halted meanwhile, as if training took hours."""
    some = [
        "slurm/train_eeg.sh", "small.toml", "--set", "train.steps=150", "--set", "train.checks=15",
        "--set", "train.patience=20", "--set", "train.refit=false",
    ]  # fmt: skip
    ended(slurm, site, sbatch(slurm, site, "--nodes=2", *some, "--set", "paths.runs=whole"))
    job = sbatch(slurm, site, "--nodes=2", "--time=10", "--signal=B:USR1@100", *some, "--set", "paths.runs=parts")
    log = site / f"job-{job}.out"
    checkpoints = "parts/*/checkpoints/*_unfinished.safetensors"
    wait_until(lambda: list(site.glob(checkpoints)) and len(trainers(job)) == 2, "no checkpoint")
    halted = trainers(job)
    for pid in halted:
        os.kill(pid, signal.SIGSTOP)
    said(slurm, site, "scontrol", "update", f"JobId={job}", "TimeLimit=2")
    wait_until(lambda: log.read_text().count("death signal") == 2, "Slurm sent no warning")
    for pid in halted:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: "Restarts=1" in said(slurm, site, "scontrol", "show", "job", job), "it did not go back")
    said(slurm, site, "scontrol", "update", f"JobId={job}", "TimeLimit=10")
    ended(slurm, site, job)
    assert "saved at step" in log.read_text()
    assert "goes back into the queue" in log.read_text()
    assert "Restarts=1" in said(slurm, site, "scontrol", "show", "job", job)
    whole, parts = (contents(next((site / name).glob("small-*"))) for name in ("whole", "parts"))
    for name in ("checkpoints/fold0_member0.safetensors", "curve.tsv", "predictions/validation.tsv"):
        assert whole[name] == parts[name], name
    assert whole.keys() == parts.keys()


def trainers(job: str) -> list[int]:
    """Process ids of a job's trainers, which torchrun has given a rank."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile, or not ours
            continue
        if f"SLURM_JOB_ID={job}".encode() in environment and any(line.startswith(b"RANK=") for line in environment):
            found.append(int(process.name))
    return found


@pytest.mark.slow
def test_one_command_from_recordings_to_pictures_and_scores(slurm: Mapping[str, str], site: Path) -> None:
    cwd = site / "chain"
    cwd.mkdir()
    (cwd / "bids").symlink_to(site / "bids")
    shutil.copy(site / "small.toml", cwd)
    sets = [part for override in PICTURES for part in ("--set", override)]
    printed = said(slurm, cwd, *COMMAND, "submit", "all", "small.toml", *sets, "--dry-run")
    assert [line.partition("=")[0] for line in printed.splitlines()[1:]] == [
        "convert", "embed", "train", "generator", "reconstruct", "evaluate", "report"
    ]  # fmt: skip
    assert "--dependency=afterok:$train:$generator" in printed
    assert not (cwd / "runs").exists()
    held = ("--slurm", "convert.array=1-2", "--slurm", "convert.begin=now+3600")
    submitted = said(slurm, cwd, *COMMAND, "submit", "all", "small.toml", *sets, *held)
    jobs = dict(re.findall(r"(\w+): job (\d+)", submitted))
    assert "is in the queue already" in refused(slurm, cwd, "submit", "evaluate", "small.toml", *sets)
    assert "PENDING, waits for Dependency" in said(slurm, cwd, *COMMAND, "status", "small.toml", *sets)
    other = said(slurm, cwd, *COMMAND, "submit", "train", "small.toml")  # whose stores the chain is making
    number = re.findall(r"train: job (\d+)", other)[0]
    waits = said(slurm, cwd, "scontrol", "show", "job", number)
    assert re.search(rf"afterany:({jobs['convert']}|{jobs['embed']})\b", waits)
    said(slurm, cwd, "scancel", number)
    said(slurm, cwd, "scontrol", "update", f"JobId={jobs['convert']}", "StartTime=now")
    ended(slurm, cwd, *jobs.values())
    status = said(slurm, cwd, *COMMAND, "status", "small.toml", *sets)
    assert f"convert (job {jobs['convert']}): 2 COMPLETED" in status
    [run] = (cwd / "runs").glob("small-" + "[0-9a-f]" * 8)
    assert f"{run.relative_to(cwd)}: trained, scored" in status
    assert "small-generator-" in status
    scores = json.loads((run / "scores.json").read_text())["rows"]
    assert {"retrieve", "reconstruct"} <= {row["task"] for row in scores}
    assert list(run.glob("reconstruction-*/grid_01.png"))
    assert "</html>" in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_search_over_the_nodes_of_a_job(slurm: Mapping[str, str], site: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'synapse-diffusion[tune]'")
    tree = tomllib.loads((site / "small.toml").read_text())
    tree["tune"] = {"space": {"train.learning_rate": {"low": 1e-4, "high": 3e-3, "log": True}}, "search": "random"}
    (site / "search.toml").write_text(tomli_w.dumps({**tree, "train": {"steps": 4, "checks": 2}}))
    job = sbatch(slurm, site, "--nodes=2", "slurm/tune.sh", "eeg", "search.toml", "--trials", "2")
    ended(slurm, site, job)
    log = (site / f"job-{job}.out").read_text()
    assert "(2 nodes, 2 CPUs, no GPU)" in log
    assert "best: trial" in log
    assert next(site.glob("runs/tune-search-*/best.toml")).exists()


@pytest.mark.slow
def test_what_slurm_refuses_is_one_line(slurm: Mapping[str, str], site: Path) -> None:
    wrong = refused(slurm, site, "submit", "all", "small.toml", "--slurm", "evaluate.partition=nosuch")
    assert "evaluate: sbatch: invalid partition specified: nosuch" in wrong
    assert "(there are: away, main); nothing was submitted" in wrong
    wait_until(lambda: not said(slurm, site, "squeue", "--noheader"), "those before it were not taken back")
    assert "unrecognized option" in refused(slurm, site, "submit", "train", "small.toml", "--slurm", "no-such=1")
    assert "has no stage 'embed'" in refused(slurm, site, "submit", "embed", "small.toml")
    nowhere = ["small.toml", "--set", "paths.bids=nosuch", "--set", "paths.runs=failed"]
    said(slurm, site, *COMMAND, "submit", "all", *nowhere, "--slurm", "convert.array=1-2")
    wait_until(lambda: not said(slurm, site, "squeue", "--noheader"), "a chain whose first job fails")
    states = re.sub(r"job \d+", "job", said(slurm, site, *COMMAND, "status", *nowhere)).splitlines()
    assert states[0] == "convert (job): 2 FAILED"
    assert states[1].startswith("  why: failed/slurm/small-convert-")
    assert states[2:] == [f"{stage} (job): CANCELLED" for stage in ("train", "evaluate", "report")]
    logs = "".join(path.read_text() for path in (site / "failed/slurm").glob("small-convert-*.out"))
    assert "error: nosuch: no such folder; set paths.bids" in logs
    said(slurm, site, *COMMAND, "submit", "train", "small.toml", "--slurm", "partition=away")
    wait_until(
        lambda: "no node that it could use is up" in said(slurm, site, *COMMAND, "status", "small.toml"),
        "a job for a node that never comes up",
    )
    said(slurm, site, "scancel", "--me")
    failing = sbatch(slurm, site, "--array=3-4", "slurm/convert.sh", "eeg", "small.toml")
    wait_until(lambda: (site / f"job-{failing}.out").exists(), "no log")
    wait_until(lambda: "give 1-N" in (site / f"job-{failing}.out").read_text(), "another array than 1-N")
