"""The only door to processes and devices.

A group of processes works on one batch: each takes its share of the rows, gradients are averaged, and everything random
is drawn for the whole batch, so that a group ends where one process would.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.multiprocessing.spawn import ProcessRaisedException, start_processes
from torch.nn.parallel import DistributedDataParallel

from synapse_diffusion.errors import MissingError, SynapseError

Sharding = Literal["ddp", "fsdp"]
PATIENCE: Final = timedelta(minutes=10)  # for a process that does not answer
MARK: Final = "\x1e"
KEEPING: Final = {-1: (2**31 - 1, 2**26), -2: (2**26, 2**17), -4: (0, 2**16)}
"""glibc's M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX (malloc.h) in a fit, and after it: its own defaults, the first one as
large as it grows by itself."""


@dataclass(frozen=True)
class Group:
    """This process among those that train one model."""

    rank: int = 0
    size: int = 1

    def share(self, n: int) -> slice:
        """This process's rows of a batch of `n`; the shares follow each other and differ by one row at most."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes the best there is. Raises `MissingError` for one that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise MissingError(f"execution.device = {name!r} cannot be used: {reason}; take 'auto' or 'cpu'") from None
    return device


def use_threads(n: int) -> None:
    """Threads of PyTorch's mathematics on the CPU; 0 leaves its default."""
    if n:
        torch.set_num_threads(n)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let the C library keep memory that is freed in here for what is asked for next, rather than give it back.

    Steps free and ask for the same hundreds of megabytes. glibc returns blocks above 32 MiB, and what lies free at
    the heap's end, to the system at once; each step then waits for empty pages. Afterwards all that is free goes
    back. Elsewhere than in glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    for option, value in KEEPING.items():
        library.mallopt(option, value[0])
    try:
        yield
    finally:
        for option, value in KEEPING.items():
            library.mallopt(option, value[1])
        library.malloc_trim(0)


@contextmanager
def session(device: torch.device) -> Iterator[Group]:
    """Join the group that torchrun's environment describes, or that a launcher has made already; else be alone."""
    if distributed.is_available() and distributed.is_initialized():
        yield Group(distributed.get_rank(), distributed.get_world_size())
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        try:
            yield Group(distributed.get_rank(), distributed.get_world_size())
        finally:
            distributed.destroy_process_group()
    else:
        yield Group()


def wrap(model: nn.Module, group: Group, sharding: Sharding) -> nn.Module:
    """The model as this group trains it: as it is, replicated (DDP), or with its weights divided (FSDP2, in place)."""
    if group.size == 1:
        return model
    if sharding == "fsdp":
        return cast("nn.Module", fully_shard(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its new name is not known to older versions
        # no buffer changes in training; gradients lie where they are exchanged, once
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def gather(x_BD: Tensor, group: Group) -> Tensor:
    """The rows of all processes, in order of rank, with gradient: contrastive losses need the whole batch's negatives.

    Every process must hold equally many rows. Each then computes the same loss of the whole batch; the gradient that
    comes back is summed over processes, so that the average that DDP and FSDP take is that of one process.
    """
    if group.size == 1:
        return x_BD
    apply = cast("Callable[..., Tensor]", _Gather.apply)
    return apply(x_BD, group.rank, group.size)


class _Gather(torch.autograd.Function):
    """All-gather whose gradient is the sum of what every process derived for these rows."""

    @staticmethod
    def forward(ctx: Any, x_BD: Tensor, rank: int, size: int) -> Tensor:
        ctx.rows = slice(rank * len(x_BD), (rank + 1) * len(x_BD))
        every = [torch.empty_like(x_BD) for _ in range(size)]
        distributed.all_gather(every, x_BD.contiguous())
        return torch.cat(every)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[ctx.rows], None, None


def mean_over(value: Tensor, group: Group) -> Tensor:
    """Mean of a value over processes, without gradient."""
    if group.size == 1:
        return value.detach()
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / group.size


def most(value: int, group: Group) -> int:
    """The largest of all processes' numbers."""
    if group.size == 1:
        return value
    largest = torch.tensor([value])
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)


def wait_for_all(group: Group) -> None:
    """Until every process is here."""
    if group.size > 1:
        most(0, group)


def whole(value: Tensor) -> Tensor:
    """A weight, gathered from all processes where each holds a share (all must call this)."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def shared_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole weight as this process holds `like`: all of it, or its share."""
    value = value.to(like.device, like.dtype)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value


def n_processes(wanted: int, device: torch.device) -> int:
    """How many processes are to train together; 0 wanted: one for each GPU, one on a CPU."""
    return wanted or (torch.cuda.device_count() if device.type == "cuda" else 1)


def is_launched() -> bool:
    """Does this process belong to a group already, by torchrun or another launcher?"""
    return "WORLD_SIZE" in os.environ or (distributed.is_available() and distributed.is_initialized())


def launch(n: int, work: Callable[..., None], *arguments: Any, hear: Callable[[Any], None]) -> None:
    """Run `work(tell, *arguments)` in `n` new processes that form a group; each sees torchrun's environment.

    What the first one tells, `hear` gets here. SIGTERM and SIGUSR1 are passed on. Where one fails the others are ended,
    and its error is raised here.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told: Any = multiprocessing.get_context("spawn").SimpleQueue()
    start: Callable[..., Any] = start_processes
    context = start(_launched, (n, port, told, work, arguments), nprocs=n, join=False, start_method="spawn")

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in context.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        ended = False
        while not ended:
            ended = context.join(timeout=0.1)
            while not told.empty():
                hear(told.get())
    except ProcessRaisedException as error:
        raise _original(error) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in context.processes:
            if process.is_alive():
                process.terminate()


def _launched(rank: int, n: int, port: int, told: Any, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    try:
        work(told.put if rank == 0 else _not_told, *arguments)
    except SynapseError as error:  # across processes go text and kind
        raise SystemError(f"{MARK}{type(error).__name__}:{error}{MARK}") from None


def _not_told(message: Any) -> None:
    """For all processes but the first."""


def _original(error: Exception) -> Exception:
    """The user's failure behind an error of a process, where it was one."""
    parts = str(error).split(MARK)
    if len(parts) < 3:
        return error
    name, _, text = parts[1].partition(":")
    kinds = {kind.__name__: kind for kind in SynapseError.__subclasses__()}
    return kinds.get(name, SynapseError)(text)
