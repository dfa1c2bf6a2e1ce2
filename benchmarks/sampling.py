"""Pictures a second from our sampler and DiT, and from diffusers' with the same weights; and training steps a second.

    python benchmarks/sampling.py [--threads 1] [--device cpu] [--pairs 9] [--batch 32] [--steps 5] [--size 32]

Both are DDIM on v with guidance, or Euler's method on a flow, without gradient, from the same noise; the largest
difference of the pictures is printed first. diffusers' DiT is taken as published (GELU by a hyperbolic tangent), and
with the exact GELU that ours has. Then our flow as `reconstruct` samples it, with the Gaussian part beside the network
(`diffusion/gaussian.py`), against diffusers' without. Interleaved pairs: median of either, and the ratio's geometric
mean with its lower 95 % bound (one-sided, Student's t on the logarithms). Memory: of a fresh process, before and at the
peak of sampling.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler
from scipy import stats
from torch import Tensor, nn

from synapse_diffusion.diffusion.gaussian import GaussianPictures
from synapse_diffusion.diffusion.guidance import Embedded, guided
from synapse_diffusion.diffusion.processes import Betas, RectifiedFlow
from synapse_diffusion.diffusion.samplers import ddim, euler_flow, even_times
from synapse_diffusion.models.conditioning import Condition
from synapse_diffusion.models.dit import DiT

CLASSES, HEADS, SCALE, LABEL = 16, 4, 3.0, "label"
KNOWN = 48  # components of the coarse copy
PEERS = {"as published": "gelu-approximate", "exact GELU": "gelu"}
Sampler = Callable[[Tensor, Tensor], Tensor]


def make(size: int, device: str) -> DiT:
    """Our DiT of 1.3 million parameters, nothing of it zero."""
    torch.manual_seed(0)
    model = DiT((3, size, size), {LABEL: CLASSES}, heads=HEADS).to(device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def twin(model: DiT, activation: str) -> nn.Module:
    """diffusers' DiT with our weights; its classes are our one-hot vectors, its last class none."""
    width = model.enter.out_features
    channels, size, _ = model.shape
    peer: nn.Module = DiTTransformer2DModel(
        num_attention_heads=HEADS, attention_head_dim=width // HEADS, in_channels=channels, sample_size=size,
        num_layers=len(model.blocks), patch_size=model.patch, num_embeds_ada_norm=CLASSES, activation_fn=activation,
    )  # fmt: skip
    peer.load_state_dict(translated(model, peer.state_dict()))
    return peer.to(model.position_ND.device).eval()  # in training it drops classes by itself


def translated(model: DiT, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under diffusers' names, over their positions."""
    own, width = model.state_dict(), model.enter.out_features
    result = dict(state)
    result["pos_embed.proj.weight"] = own["enter.weight"].reshape(state["pos_embed.proj.weight"].shape)
    result["pos_embed.proj.bias"] = own["enter.bias"]
    bias, null = own[f"vectors.enter.{LABEL}.bias"], own[f"vectors.null.{LABEL}"]
    table = torch.cat([own[f"vectors.enter.{LABEL}.weight"].T + bias, null[None]])
    modulation = {key: own[f"modulation.{key}"].unflatten(0, (-1, width)) for key in ("weight", "bias")}
    for k in range(len(model.blocks)):
        here, there = f"blocks.{k}", f"transformer_blocks.{k}"
        for key in ("weight", "bias"):
            parts = own[f"{here}.query_key_value.{key}"].chunk(3)
            result |= {f"{there}.attn1.to_{name}.{key}": part for name, part in zip("qkv", parts, strict=True)}
            result[f"{there}.attn1.to_out.0.{key}"] = own[f"{here}.out.{key}"]
            result[f"{there}.ff.net.0.proj.{key}"] = own[f"{here}.feed_in.{key}"]
            result[f"{there}.ff.net.2.{key}"] = own[f"{here}.feed_out.{key}"]
            result[f"{there}.norm1.linear.{key}"] = modulation[key][6 * k : 6 * k + 6].flatten(0, 1)
            result[f"{there}.norm1.emb.timestep_embedder.linear_1.{key}"] = own[f"time.inner.{key}"]
            result[f"{there}.norm1.emb.timestep_embedder.linear_2.{key}"] = own[f"time.outer.{key}"]
        result[f"{there}.norm1.emb.class_embedder.embedding_table.weight"] = table
    # diffusers' numbers of a patch go by row, column, channel
    for key in ("weight", "bias"):
        result[f"proj_out_1.{key}"] = modulation[key][-2:].flatten(0, 1)
        by_channel = own[f"exit.{key}"].unflatten(0, (model.shape[0], -1))
        result[f"proj_out_2.{key}"] = by_channel.transpose(0, 1).flatten(0, 1)
    return result


def ours(model: DiT, kind: str, steps: int) -> Sampler:
    """Our way from noise and classes to pictures."""

    def sample(x: Tensor, label_B: Tensor) -> Tensor:
        one_hot = nn.functional.one_hot(label_B, CLASSES).float()
        known, null = (model.embed(Condition(v, {}), len(x)) for v in ({LABEL: one_hot}, {}))
        denoise = guided(model.denoise, known, null, SCALE)
        if kind == "DDIM":
            return ddim(denoise, x, even_times(steps), Betas())
        return euler_flow(denoise, x, even_times(steps))

    return sample


def painted(model: DiT, steps: int) -> Sampler:
    """The same for a flow, with a Gaussian part of as many known numbers as the generator has by default."""
    shape = model.shape
    draws = torch.Generator().manual_seed(2)
    known_NE, x0_NCHW = torch.randn(256, KNOWN, generator=draws), torch.randn(256, *shape, generator=draws)
    gaussian = GaussianPictures(shape, KNOWN)
    gaussian.fit(x0_NCHW, known_NE)
    gaussian.to(model.position_ND.device)

    def predict(x: Tensor, t: Tensor, embedded: Embedded) -> Tensor:
        expected = (embedded[0], embedded[1])
        return gaussian.predict(RectifiedFlow(), x, t, expected, model.denoise(x, t, embedded[2:]))

    def sample(x: Tensor, label_B: Tensor) -> Tensor:
        one_hot = nn.functional.one_hot(label_B, CLASSES).float()
        zeros = torch.zeros(len(x), KNOWN, device=x.device)
        known, null = (
            (*gaussian.expect(zeros, zeros + doubt), *model.embed(Condition(v, {}), len(x)))
            for v, doubt in (({LABEL: one_hot}, 0.5), ({}, 1.0))
        )
        return euler_flow(guided(predict, known, null, SCALE), x, even_times(steps))

    return sample


def theirs(peer: nn.Module, kind: str, steps: int) -> Sampler:
    """The loop of diffusers' DiT pipeline: both halves of guidance in one batch, the scheduler's step."""

    def sample(x: Tensor, label_B: Tensor) -> Tensor:
        scheduler = scheduler_for(kind, steps)
        both_B = torch.cat([label_B, torch.full_like(label_B, CLASSES)])
        for t in scheduler.timesteps:
            # ours counts the steps from 1, and a flow's time is the noise's share
            now = (t + 1 if kind == "DDIM" else t).float().to(x.device).expand(len(both_B))
            known, null = peer(torch.cat([x, x]), now, both_B).sample.chunk(2)
            x = scheduler.step(null + SCALE * (known - null), t, x).prev_sample
        return x

    return sample


def scheduler_for(kind: str, steps: int) -> DDIMScheduler | FlowMatchEulerDiscreteScheduler:
    """diffusers' scheduler at our times."""
    if kind == "DDIM":
        scheduler = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
            timestep_spacing="trailing", clip_sample=False,
        )  # fmt: skip
        scheduler.set_timesteps(steps)
    else:
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=even_times(steps)[:-1])
    return scheduler


def training_step(model: nn.Module, predict: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    """Forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        torch.autograd.backward((predict(x) - x).square().mean())
        optimizer.step()

    return step


def peer_prediction(peer: nn.Module, t_B: Tensor, label_B: Tensor, x: Tensor) -> Tensor:
    """Of diffusers' DiT."""
    result: Tensor = peer(x, t_B, label_B).sample
    return result


def compare(name: str, own: Callable[[], object], peer: Callable[[], object], pairs: int, batch: int) -> None:
    """Interleaved pairs; prints."""
    sides = {"diffusers": peer, "ours": own}
    for call in sides.values():
        call()
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(pairs):
        for side, call in sides.items():
            started = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[side].append(time.perf_counter() - started)
    log_ratio = np.log(np.array(seconds["diffusers"]) / np.array(seconds["ours"]))
    low = log_ratio.mean() - stats.t.ppf(0.95, pairs - 1) * log_ratio.std(ddof=1) / np.sqrt(pairs)
    rate = {side: batch / statistics.median(values) for side, values in seconds.items()}
    print(
        f"    {name:32s} diffusers {rate['diffusers']:7.1f}, ours {rate['ours']:7.1f} pictures/s: "
        f"{np.exp(log_ratio.mean()):.2f} times, at least {np.exp(low):.2f}"
    )


def peak_mb() -> float:
    """This process's largest resident size so far, in MB."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1e3


def measure_memory(side: str, given: argparse.Namespace) -> None:
    """Of one batch of pictures, after one of a single picture, in this process; prints."""
    model = make(given.size, "cpu")
    sample = ours(model, "DDIM", 2) if side == "ours" else theirs(twin(model, PEERS["as published"]), "DDIM", 2)
    with torch.no_grad():
        x, label_B = inputs(given)
        sample(x[:1], label_B[:1])
        before = peak_mb()
        sample(x, label_B)
    print(f"    memory, {side:9s} {before:6.0f} MB, and at the peak of sampling {peak_mb() - before:6.0f} MB more")


def inputs(given: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Noise and classes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(given.batch, 3, given.size, given.size, generator=generator).to(given.device)
    return x, torch.arange(given.batch, device=given.device) % CLASSES


def measure_speed(given: argparse.Namespace) -> None:
    """All comparisons; prints."""
    model = make(given.size, given.device)
    peers = {name: twin(model, activation) for name, activation in PEERS.items()}
    x, label_B = inputs(given)
    print(f"{tuple(x.shape[1:])}, batch {given.batch}, {given.steps} steps, {given.device}, {given.threads} threads")
    with torch.no_grad():
        for kind in ("DDIM", "flow"):
            own = ours(model, kind, given.steps)
            for name, peer in peers.items():
                other = theirs(peer, kind, given.steps)
                difference = float((own(x, label_B) - other(x, label_B)).abs().max())
                print(f"    {kind}, {name}: pictures differ by {difference:.1e}")
                sides = partial(own, x, label_B), partial(other, x, label_B)
                compare(f"{kind}, {name}", *sides, given.pairs, given.batch)
        own, other = painted(model, given.steps), theirs(peers["as published"], "flow", given.steps)
        sides = partial(own, x, label_B), partial(other, x, label_B)
        compare("flow, with the Gaussian part", *sides, given.pairs, given.batch)
    one_hot = nn.functional.one_hot(label_B, CLASSES).float()
    t_B = torch.linspace(0, 1, len(x), device=given.device)
    own_step = training_step(model, lambda x: model(x, t_B, Condition({LABEL: one_hot}, {})))
    for name, peer in peers.items():
        peer_step = training_step(peer, partial(peer_prediction, peer, 1000 * t_B, label_B))
        compare(f"training, {name}", partial(own_step, x), partial(peer_step, x), given.pairs, given.batch)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--memory", choices=("ours", "diffusers"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.memory:
        measure_memory(given.memory, given)
        return
    measure_speed(given)
    for side in ("diffusers", "ours"):
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--device", "cpu", "--memory", side], check=True)


if __name__ == "__main__":
    main()
