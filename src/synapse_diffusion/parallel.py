"""The only door to processes and devices.

A group of processes works on one batch: each takes its share of the rows, gradients are averaged, and everything random
is drawn for the whole batch, so that a group ends where one process would.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from synapse_diffusion.errors import MissingError

Sharding = Literal["ddp", "fsdp"]
PATIENCE: Final = timedelta(minutes=10)  # for a process that does not answer


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
    return DistributedDataParallel(model)


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


def full_state(model: nn.Module) -> dict[str, Tensor]:
    """All weights and buffers, whole, on the CPU, under the bare model's names; all processes must call this."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast("dict[str, Tensor]", get_model_state_dict(model, options=options))


def load_full_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put whole weights into a model, however it is wrapped; all processes must call this with the same ones."""
    set_model_state_dict(model, dict(state), options=StateDictOptions(full_state_dict=True))
