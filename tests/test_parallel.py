"""Two processes equal one: shares, gathered losses, replicated and divided weights."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from synapse_diffusion.parallel import Group, full_state, gather, load_full_state, mean_over, session, wrap

STEPS, BATCH = 20, 12


@given(n=st.integers(0, 200), size=st.integers(1, 16))
def test_shares_are_all_rows_once(n: int, size: int) -> None:
    rows = [k for rank in range(size) for k in range(n)[Group(rank, size).share(n)]]
    assert rows == list(range(n))
    lengths = [len(range(n)[Group(rank, size).share(n)]) for rank in range(size)]
    assert max(lengths) - min(lengths) <= 1


def in_group(size: int, work: Callable[[Group, Path], None], folder: Path) -> None:
    """Run `work` on forked processes that find each other as torchrun's do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_member, args=(rank, size, port, work, folder)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * size


def _member(rank: int, size: int, port: int, work: Callable[[Group, Path], None], folder: Path) -> None:
    import os

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with session(torch.device("cpu")) as group:
        assert (group.rank, group.size) == (rank, size)
        work(group, folder)


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))


def contrastive_steps(sharding: Any) -> Callable[[Group, Path], None]:
    """Train with an InfoNCE loss over the whole batch; rank 0 writes losses and weights."""

    def work(group: Group, folder: Path) -> None:
        bare = small_model()
        model = wrap(bare, group, sharding)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        generator = torch.Generator().manual_seed(1)
        losses = []
        for _ in range(STEPS):
            x, target = torch.randn(BATCH, 8, generator=generator), torch.randn(BATCH, 4, generator=generator)
            z = gather(functional.normalize(model(x[group.share(BATCH)]), dim=1), group)
            loss = functional.cross_entropy(z @ functional.normalize(target, dim=1).T / 0.1, torch.arange(BATCH))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(mean_over(loss, group))
        state = full_state(model)
        if group.rank == 0:
            save_file({**state, "losses": torch.stack(losses)}, folder / f"{sharding}{group.size}.safetensors")

    return work


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_contrastive_loss_over_two_processes_is_that_of_one(tmp_path: Path, sharding: str) -> None:
    contrastive_steps(sharding)(Group(), tmp_path)
    in_group(2, contrastive_steps(sharding), tmp_path)
    one, two = (load_file(tmp_path / f"{sharding}{size}.safetensors") for size in (1, 2))
    assert one.keys() == two.keys()
    assert one["losses"][0] - one["losses"][-1] > 0.1
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-5), name


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_whole_weights_go_into_any_wrapping(tmp_path: Path, sharding: Any) -> None:
    state = {name: torch.randn_like(value) for name, value in small_model().state_dict().items()}
    save_file(state, tmp_path / "state.safetensors")

    def work(group: Group, folder: Path) -> None:
        model = wrap(small_model(), group, sharding)
        load_full_state(model, load_file(folder / "state.safetensors"))
        back = full_state(model)
        if group.rank == 0:
            save_file(back, folder / "back.safetensors")

    in_group(2, work, tmp_path)
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())
