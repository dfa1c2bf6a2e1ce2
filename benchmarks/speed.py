"""Trials a second through every decoder, forward and backward, and what other ways to the same numbers gain.

    python benchmarks/speed.py [--threads 1] [--device cpu] [--pairs 9] [--batch 64]

Sizes: EEG, 63 sensors x 250 samples at 250 Hz; MEG, 271 x 200 at 200 Hz; 4 people, 27 outputs. First each decoder's
best of a few steps. Then in interleaved pairs, median of either, and the ratio's geometric mean with its lower 95 %
bound (one-sided, Student's t on the logarithms): NICE's encoder (Song et al. 2024) as published, in plain layers, and
ours, the same function but for the normalisation; and the compact decoder with 32 and with 512 temporal filters, by
PyTorch's convolution and by Fourier transforms.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping

import numpy as np
import torch
from scipy import stats
from torch import nn

from synapse_diffusion.models.base import Shape
from synapse_diffusion.models.compact import CompactDecoder
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


class Direct(CompactDecoder):
    """The same with PyTorch's convolution."""

    def _filtered(self, x_BCT: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.temporal(x_BCT)
        return found


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
        compare("TSConv", forms, given.pairs, x_BCT)
        for width in (32, 512) if given.device == "cpu" else ():
            shape = Shape(n_sensors, n_times, OUTPUTS, PEOPLE, sfreq)
            ways = {"direct": Direct(shape, width=width), "Fourier": CompactDecoder(shape, width=width)}
            compare(f"compact {width}", ways, given.pairs, x_BCT, person_B)


def compare(name: str, forms: Mapping[str, nn.Module], pairs: int, *inputs: torch.Tensor) -> None:
    """Print how many times as many trials a second the second form takes as the first."""
    for model in forms.values():
        seconds(model, *inputs)
    times: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(pairs):
        for form, model in forms.items():
            times[form].append(seconds(model, *inputs))
    for form, values in times.items():
        print(f"    {name + ', ' + form:24s} {len(inputs[0]) / statistics.median(values):11,.0f}")
    (slow, slow_s), (fast, fast_s) = times.items()
    log_ratio = np.log(np.array(slow_s) / np.array(fast_s))
    low = np.exp(log_ratio.mean() - stats.t.ppf(0.95, pairs - 1) * log_ratio.std(ddof=1) / np.sqrt(pairs))
    print(f"    {fast} / {slow} {np.exp(log_ratio.mean()):.2f} times, at least {low:.2f}")


if __name__ == "__main__":
    main()
