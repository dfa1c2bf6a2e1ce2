"""A throw-away Slurm cluster on loopback: munged, slurmctld and slurmd as our children; nothing is installed.

python tests/slurm_engine.py FOLDER     # until Ctrl-C; elsewhere: export SLURM_CONF=FOLDER/slurm.conf
"""

from __future__ import annotations

import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

NEEDED: Final = ("munged", "slurmctld", "slurmd", "sbatch")
PATIENCE_S: Final = 30
CONFIGURATION: Final = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
CredType=cred/munge
# a job that was put back waits for its credential's end: 120 s by default
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=200000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
MinJobAge=600
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={first},{second} CPUs=2 RealMemory=4000
NodeName=n3 NodeHostname={host} NodeAddr=127.0.0.1 Port={third} CPUs=2 RealMemory=4000 State=DOWN
PartitionName=main Nodes=n[1-2] Default=YES State=UP
# its node never comes up
PartitionName=away Nodes=n3 State=UP
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    return [name for name in NEEDED if shutil.which(name, path=_path()) is None]


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Two nodes n1 and n2 of two processors (partition main), and n3 that is down (away); the environment to use it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state").mkdir()
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(folder / "slurm.conf")}
    (folder / "slurm.conf").write_text(_configuration(folder))
    version = subprocess.run(["slurmd", "-V"], env=environment, capture_output=True, text=True, check=True).stdout
    if tuple(map(int, version.split()[-1].split(".")[:2])) >= (23, 11):  # older ones do not know the word
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"]
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (folder / f"{command[0]}.out").open("ab") as out:
            daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out, preexec_fn=_end_with_us))

    try:
        start(*munged)
        _until(lambda: (folder / "munge.socket").exists(), folder, daemons)
        start("slurmctld", "-D", "-c")
        for name in ("n1", "n2"):
            (folder / f"spool-{name}").mkdir()
            start("slurmd", "-D", "-N", name)
        _until(lambda: _said(environment, "sinfo", "-h", "-p", "main", "-o", "%D %t") == "2 idle", folder, daemons)
        yield environment
    finally:
        if daemons:
            _said(environment, "scancel", "--me")
            deadline = time.monotonic() + PATIENCE_S
            while _said(environment, "squeue", "-h") and time.monotonic() < deadline:  # no step outlives its slurmd
                time.sleep(0.1)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _path() -> str:
    """Where daemons are, too."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def _end_with_us() -> None:
    """The system ends this process when its parent has died, however that was (prctl's PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _configuration(folder: Path) -> str:
    taken = [socket.socket() for _ in range(4)]
    for free in taken:
        free.bind(("127.0.0.1", 0))
    ports = {
        name: free.getsockname()[1] for name, free in zip(("port", "first", "second", "third"), taken, strict=True)
    }
    for free in taken:
        free.close()
    host = socket.gethostname().partition(".")[0]
    return CONFIGURATION.format(host=host, user=getpass.getuser(), folder=folder, **ports)


def _until(ready: Callable[[], bool], folder: Path, daemons: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        ended = [str(daemon.args) for daemon in daemons if daemon.poll() is not None]
        if ended or time.monotonic() > deadline:
            raise RuntimeError(f"Slurm did not come up within {PATIENCE_S} s; ended: {ended}; logs are in {folder}")
        time.sleep(0.1)


def _said(environment: dict[str, str], *command: str) -> str:
    """A command's output; nothing where it does not answer."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip()


if __name__ == "__main__":
    with cluster(Path(sys.argv[1]).resolve()) as _, suppress(KeyboardInterrupt):
        time.sleep(1e6)
