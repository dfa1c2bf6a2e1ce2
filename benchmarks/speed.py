"""Trials a second through every decoder, forward and backward, and what merging TSConv's convolution and pooling gains.

    python benchmarks/speed.py [--threads 1] [--device cpu] [--pairs 9] [--batch 64]

Sizes: EEG, 63 sensors x 250 samples at 250 Hz; MEG, 271 x 200 at 200 Hz; 4 people, 27 outputs. First each decoder's
best of a few steps. Then NICE's encoder (Song et al. 2024) as published, in plain layers, and ours, the same function
but for the normalisation, in interleaved pairs: median of either, and the ratio's geometric mean with its lower 95 %
bound (one-sided, Student's t on the logarithms).
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from scipy import stats
from torch import nn

from synapse_diffusion.models.base import Shape
from synapse_diffusion.models.tsconv import TemporalSpatial
from synapse_diffusion.training.decoders import DECODERS

SIZES = {"EEG, 63 x 250": (63, 250, 250.0), "MEG, 271 x 200": (271, 200, 200.0)}
PEOPLE, OUTPUTS = 4, 27
PUBLISHED_FEATURES = 40 * 36  # of 250 samples


def published(n_sensors: int) -> nn.Module:
    """NICE's temporal-spatial convolution in the order, at the sizes and with the normalisation of its authors."""
    return nn.Sequential(
        nn.Unflatten(1, (1, n_sensors)), nn.Conv2d(1, 40, (1, 25)), nn.AvgPool2d((1, 51), (1, 5)), nn.BatchNorm2d(40),
        nn.ELU(), nn.Conv2d(40, 40, (n_sensors, 1)), nn.BatchNorm2d(40), nn.ELU(), nn.Dropout(0.5),
        nn.Conv2d(40, 40, 1), nn.Flatten(),
    )  # fmt: skip


def seconds(model: nn.Module, *inputs: torch.Tensor) -> float:
    """Of one step forward and backward."""
    started = time.perf_counter()
    model(*inputs).square().mean().backward()
    if inputs[0].device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def positions(n_sensors: int) -> tuple[tuple[float, ...], ...]:
    """Sensors at random places of a head."""
    direction = np.random.default_rng(0).standard_normal((n_sensors, 3))
    return tuple(map(tuple, (0.1 * direction / np.linalg.norm(direction, axis=1, keepdims=True)).tolist()))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    for size, (n_sensors, n_times, sfreq) in SIZES.items():
        x_BCT = torch.randn(given.batch, n_sensors, n_times, device=given.device)
        person_B = torch.arange(given.batch, device=given.device) % PEOPLE
        print(f"{size}, batch {given.batch}, {given.device}, {given.threads} threads: parameters, trials/s")
        for name, decoder in DECODERS.items():
            shape = Shape(n_sensors, n_times, OUTPUTS, PEOPLE, sfreq, positions(n_sensors))
            model = decoder(shape).to(given.device)
            best = min(seconds(model, x_BCT, person_B) for _ in range(4))
            print(f"    {name:14s} {sum(p.numel() for p in model.parameters()):11,d} {given.batch / best:9,.0f}")
        # at the published lengths in samples, whatever the rate
        forms: dict[str, nn.Module] = {
            "published": published(n_sensors).to(given.device),
            "merged": TemporalSpatial(n_sensors, n_times, 250.0, 40, 40, 0.5).to(given.device),
        }
        for form in forms.values():
            seconds(form, x_BCT)
        times: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(given.pairs):
            for name, form in forms.items():
                times[name].append(seconds(form, x_BCT))
        for name, values in times.items():
            print(f"    TSConv, {name:9s} {given.batch / statistics.median(values):20,.0f}")
        log_ratio = np.log(np.array(times["published"]) / np.array(times["merged"]))
        error = log_ratio.std(ddof=1) / np.sqrt(given.pairs)
        low = np.exp(log_ratio.mean() - stats.t.ppf(0.95, given.pairs - 1) * error)
        print(f"    merged / published {np.exp(log_ratio.mean()):.2f} times, at least {low:.2f}")


if __name__ == "__main__":
    main()
