"""What is there, and how trials are dealt over it: one process each, or several that train together."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

import torch

from synapse_diffusion.config import ExecutionSettings
from synapse_diffusion.errors import MissingError, SettingsError
from synapse_diffusion.processors import n_processors

PATIENCE_S: Final = 10.0
MOST_THREADS: Final = 8  # that a trial on CPUs is given unasked; decoders of this size gain nothing from more


@dataclass(frozen=True)
class Node:
    """One machine."""

    cpus: int
    gpus: int = 0


@dataclass(frozen=True)
class Machine:
    """This machine, or the nodes of a Ray cluster at an address."""

    nodes: tuple[Node, ...]
    address: str = ""

    @property
    def said(self) -> str:
        """In words."""
        cpus, gpus = sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes)
        what = f"{_count(cpus, 'CPU')}, {_count(gpus, 'GPU') if gpus else 'no GPU'}"
        if self.address:
            return f"the cluster at {self.address} ({_count(len(self.nodes), 'node')}, {what})"
        return f"this machine ({what})"


@dataclass(frozen=True)
class Plan:
    """How trials run."""

    at_once: int
    processes: int
    """That train one trial together."""
    cpus: int
    """Of each process."""
    gpus: int
    """Of each process: 1 or 0."""
    why: str
    """In one line."""


def this_machine() -> Machine:
    """The processors that this process may use, and the GPUs that PyTorch sees."""
    return Machine((Node(n_processors(), torch.cuda.device_count()),))


def reach(address: str) -> None:
    """Raise `MissingError` where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.removeprefix("ray://"), int(port)), PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise MissingError(
            f"--address {address}: nothing answers ({error}); start a cluster by `ray start --head`, or leave it out"
        ) from None


def choose(machine: Machine, trials: int, execution: ExecutionSettings) -> Plan:
    """The plan for so many trials: a function of nothing but its arguments.

    Without a GPU, or with one: plain trials, as many at once as there are processors (or the one GPU). Several GPUs:
    trials side by side with a GPU each. `execution.processes` above 1: each trial is so many processes, with a GPU each
    where there are GPUs. Raises `SettingsError` where there are too few.
    """
    nodes = [node for node in machine.nodes if node.cpus]
    n_gpus = 0 if execution.device == "cpu" else sum(node.gpus for node in nodes)
    processes = max(1, execution.processes)
    if n_gpus:
        cpus = min(max(1, node.cpus // node.gpus) for node in nodes if node.gpus)
        places, unit = n_gpus, "GPU"
    else:
        share = sum(node.cpus for node in nodes) // (trials * processes)
        cpus = execution.threads or min(MOST_THREADS, max(1, share))
        cpus = min(cpus, max((node.cpus for node in nodes), default=1))
        places, unit = sum(node.cpus // cpus for node in nodes), "CPU"
    if places < processes:
        raise SettingsError(
            f"execution.processes = {processes}, but {machine.said} has room for {places} with a {unit} each; lower it"
        )
    at_once = min(trials, places // processes)
    why = f"{_count(trials, 'trial')}, {at_once} at a time, on {machine.said}: {_said(n_gpus, cpus, execution)}"
    return Plan(at_once, processes, cpus, int(bool(n_gpus)), why)


def _said(n_gpus: int, cpus: int, execution: ExecutionSettings) -> str:
    """What one trial is, and why."""
    if execution.processes > 1:
        of = "a GPU" if n_gpus else _count(cpus, "CPU")
        return (
            f"each {execution.processes} processes of {of} (Ray Train, {execution.sharding}), since "
            f"execution.processes = {execution.processes}"
        )
    if n_gpus > 1:
        return f"each one process with a GPU and {_count(cpus, 'CPU')}; execution.processes above 1 would share GPUs"
    if n_gpus:
        return f"each one process with the GPU and {_count(cpus, 'CPU')}"
    return f"each one process with {_count(cpus, 'CPU')}" + (" (execution.threads)" if execution.threads else "")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
