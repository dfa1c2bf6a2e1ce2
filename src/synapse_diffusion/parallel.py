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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, Final, Literal, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.multiprocessing.spawn import ProcessRaisedException, start_processes
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from synapse_diffusion.errors import MissingError, SynapseError

Sharding = Literal["ddp", "fsdp"]
Made = TypeVar("Made")
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
    """The device of that name; `auto` takes the best there is. Raises `MissingError` for one that is not there.

    `auto` and `cuda` give each process of a group a GPU of its own. On a GPU, convolutions compute in float32 from here
    on, where cuDNN would take TF32.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    elif name == "auto":
        device = torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    else:
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise MissingError(f"execution.device = {name!r} cannot be used: {reason}; take 'auto' or 'cpu'") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.allow_tf32 = False
    return device


class Ahead:
    """Work for later steps, from other threads: on a GPU in a stream of its own, so that it waits for no step."""

    def __init__(self, device: torch.device) -> None:
        stream: Callable[..., torch.cuda.Stream] = torch.cuda.Stream
        self._stream = stream(device) if device.type == "cuda" else None

    def work(self, make: Callable[[int], Made], step: int) -> tuple[Made, torch.cuda.Event | None]:
        """What is made, and when a GPU has it ready."""
        if self._stream is None:
            return make(step), None
        with torch.cuda.stream(self._stream):
            return make(step), self._stream.record_event()

    def take(self, tensors: Sequence[Tensor], ready: torch.cuda.Event | None) -> None:
        """Let what is asked of the GPU from here on wait for these, and keep their memory until it is done."""
        if ready is not None:
            now = torch.cuda.current_stream(tensors[0].device)
            now.wait_event(ready)
            for tensor in tensors:
                tensor.record_stream(now)


def sent(value: Tensor, device: torch.device) -> Tensor:
    """What lies on the CPU, on a device; a GPU's copy waits for nothing, since its source is pinned."""
    return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)


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
def repeatable(device: torch.device) -> Iterator[None]:
    """The same steps give the same bits in here, on a GPU too: what it computes is then added in the same order."""
    if device.type != "cuda":
        yield
        return
    filling = cast("Any", torch.utils.deterministic)
    before = torch.are_deterministic_algorithms_enabled(), filling.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    filling.fill_uninitialized_memory = False
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the gradient of its faster kernels is not repeatable
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=True)
        filling.fill_uninitialized_memory = before[1]


@contextmanager
def session(device: torch.device) -> Iterator[Group]:
    """Join the group that torchrun's environment describes, or that a launcher has made already; else be alone."""
    if distributed.is_available() and distributed.is_initialized():
        yield Group(distributed.get_rank(), distributed.get_world_size())
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group(_backends(device), timeout=PATIENCE)
        try:
            yield Group(distributed.get_rank(), distributed.get_world_size())
        finally:
            distributed.destroy_process_group()
    else:
        yield Group()


def _backends(device: torch.device) -> str:
    """NCCL between GPUs, gloo for all else: plain numbers, CPUs, and processes that share a GPU, which NCCL refuses."""
    shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" and not shared else "gloo"


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


def n_processes(wanted: int, name: str) -> int:
    """How many processes are to train together on the device of that name; 0 wanted: one for each GPU, one on a CPU.

    Raises `MissingError` where they are more than the GPUs.
    """
    if choose_device(name).type != "cuda":
        return wanted or 1
    gpus = torch.cuda.device_count() if name in ("auto", "cuda") else 1
    if wanted > gpus:
        raise MissingError(
            f"execution.processes = {wanted}, but execution.device = {name!r} has {gpus} GPU{'s' * (gpus > 1)}; "
            "lower it, or take execution.device = 'cpu'"
        )
    return wanted or gpus


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
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
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
