"""The image generator: a diffusion transformer given conditions; trained in steps, and asked for pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_diffusion.config import GeneratorSettings, ReconstructSettings
from synapse_diffusion.diffusion.gaussian import GaussianPictures
from synapse_diffusion.diffusion.guidance import Embedded, guided
from synapse_diffusion.diffusion.processes import Cosine, Process, RectifiedFlow
from synapse_diffusion.diffusion.samplers import ddim, dpm_solver_pp_2m, euler_flow, even_times, heun_flow
from synapse_diffusion.diffusion.training import denoising_loss, logit_normal_times, spread_times
from synapse_diffusion.errors import SettingsError
from synapse_diffusion.models.conditioning import Condition
from synapse_diffusion.models.dit import DiT
from synapse_diffusion.parallel import Group, gather, sent
from synapse_diffusion.training.conditions import DOUBT, LOW, Conditions, accuracies, doubted
from synapse_diffusion.training.loop import Trainable
from synapse_diffusion.training.objectives import Judged

ORDER, DRAW = 7, 8  # streams of random numbers
IMAGE: Final = "image"  # what networks call the coarse copy
FLOW_SAMPLERS: Final = ("euler_flow", "heun_flow")
DECAY: Final = (3.0, 300.0)  # components over which a doubtful condition loses its accuracy, drawn log-uniformly


@dataclass(frozen=True)
class Known:
    """Of each row what one expects of the coarse copy's components, its variance (both (B, E)), and what the network
    hears; rows of unknown copies expect 0, with variance 1."""

    low_BE: Tensor
    doubt_BE: Tensor
    condition: Condition


@dataclass(frozen=True)
class Strokes:
    """One step's share: latents (B, C, H, W), their noise and times, and what is known of them."""

    x0: Tensor
    noise: Tensor
    t_B: Tensor
    known: Known


class Painter(Trainable):
    """The network and what it is trained by; `forward` is the loss of the whole batch, from this process's share."""

    network: DiT

    def __init__(
        self, settings: GeneratorSettings, shape: tuple[int, int, int], sizes: Mapping[str, int], group: Group
    ) -> None:
        """`shape` of the latents; `sizes`: components of each condition."""
        super().__init__()
        self.settings, self.shape, self._group = settings, shape, group
        vectors = {(DOUBT if name == LOW else name): size for name, size in sizes.items()}
        if settings.width % settings.heads or settings.width % 4 or shape[1] % settings.patch:
            raise SettingsError(
                f"generator: {settings.heads} heads and 4 must divide width = {settings.width}, and patch = "
                f"{settings.patch} the {shape[1]} latents a side"
            )
        self.network = DiT(
            shape, vectors, 3 if LOW in sizes else 0, width=settings.width, depth=settings.depth, heads=settings.heads,
            patch=settings.patch,
        )  # fmt: skip
        self.process: Process = RectifiedFlow() if settings.prediction == "flow" else Cosine()
        self.gaussian = GaussianPictures(shape, sizes.get(LOW, 0))

    def begin(self, easel: Easel) -> None:
        """Fit the Gaussian part to pictures and their true conditions."""
        known_NE = easel.components.get(LOW, torch.zeros(len(easel.latents), 0))
        self.gaussian.fit(easel.latents, known_NE.to(easel.latents.device))

    def embed(self, known: Known, n_rows: int) -> Embedded:
        """What the Gaussian part expects, and conditions as the network takes them."""
        expected = self.gaussian.expect(known.low_BE, known.doubt_BE)
        return *expected, *self.network.embed(known.condition, n_rows)

    def predict(self, x: Tensor, t: Tensor, embedded: Embedded) -> Tensor:
        """Velocity or v (B, C, H, W) at times (B,) or (1,)."""
        answer = self.network.denoise(x, t, embedded[2:])
        return self.gaussian.predict(self.process, x, t, (embedded[0], embedded[1]), answer)

    def answer(self, x: Tensor, t_B: Tensor, known: Known) -> Tensor:
        """The same in training."""
        return self.predict(x, t_B, self.embed(known, len(x)))

    def forward(self, strokes: Strokes, progress: float | None) -> Tensor:
        """The loss; without progress, of validation."""
        _, power = self.gaussian.expect(strokes.known.low_BE, strokes.known.doubt_BE)
        loss = denoising_loss(
            self.answer, self.process, strokes.x0, strokes.known, strokes.noise, strokes.t_B,
            self.settings.min_snr or None, partial(self.gaussian.scaled, power),
        )  # fmt: skip
        return gather(loss.reshape(1, 1), self._group).mean()


@dataclass(frozen=True)
class Easel:
    """Steps' batches of latents (N, C, H, W) and conditions (on the CPU): each a function of the step's number."""

    latents: Tensor
    conditions: Conditions
    components: Mapping[str, Tensor]
    settings: GeneratorSettings
    key: tuple[int, ...]
    group: Group

    @property
    def size(self) -> int:
        """Pictures a step."""
        return min(self.settings.batch, len(self.latents)) // self.group.size * self.group.size

    def batches(self, start: int, stop: int) -> Iterator[Strokes]:
        """This process's shares."""
        per_pass = max(1, len(self.latents) // self.size)
        known, order = -1, np.empty(0, np.int64)
        for step in range(start, stop):
            number, k = divmod(step, per_pass)
            if number != known:
                order = np.random.default_rng([*self.key, ORDER, number]).permutation(len(self.latents))
                known = number
            yield self.make(order[k * self.size : (k + 1) * self.size], step, self.settings.dropout)

    def make(self, rows: NDArray[np.int64], step: int, dropout: float) -> Strokes:
        """A batch of these rows: everything random is drawn for the whole of it, on the CPU."""
        seed = int(np.random.SeedSequence([*self.key, DRAW, step]).generate_state(1)[0])
        draws, n = torch.Generator().manual_seed(seed), len(rows)
        share, device = self.group.share(n), self.latents.device
        noise = torch.randn(n, *self.latents.shape[1:], generator=draws)
        t_B = self._times(n, draws)
        values, present = {}, {}
        for name, z_NE in self.components.items():
            z_BE, left_BE = self._doubted(z_NE[rows], draws)
            known_B1 = torch.rand(n, 1, generator=draws) >= dropout
            values[name], present[name] = sent(z_BE[share], device), sent(known_B1[share, 0], device)
            if name == LOW:
                values[DOUBT] = sent(torch.where(known_B1, left_BE, 1.0)[share], device)
                present[DOUBT] = torch.ones_like(present[name])
        return Strokes(
            self.latents[sent(torch.from_numpy(rows), device)][share], sent(noise[share], device),
            sent(t_B[share], device),
            known_of(self.conditions, values, present),
        )  # fmt: skip

    def _times(self, n: int, draws: torch.Generator) -> Tensor:
        if self.settings.prediction == "flow":
            return logit_normal_times(torch.randn(n, generator=draws))
        return spread_times(torch.rand(n, generator=draws))

    def _doubted(self, z_BE: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Components as a brain may tell them, and the variance of the truth that is then left."""
        n, (low, high) = len(z_BE), DECAY
        share_B1, where_B1, chosen_B1 = (torch.rand(n, 1, generator=draws) for _ in range(3))
        r_BE = accuracies(share_B1, low * (high / low) ** where_B1, z_BE.shape[1])
        r_BE = torch.where(chosen_B1 < self.settings.doubt, r_BE, 1.0)
        return doubted(z_BE, r_BE, torch.randn(z_BE.shape, generator=draws)), 1 - r_BE.square()


def known_of(conditions: Conditions, values: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Known:
    """From components (B, E) and, beside `low`, their doubt; `low` reaches the network as an image."""
    heard = {(IMAGE if n == LOW else n): conditions.low_images(z) if n == LOW else z for n, z in values.items()}
    condition = Condition(heard, {(IMAGE if n == LOW else n): p for n, p in present.items()})
    if LOW not in values:
        nothing_B0 = next(iter(values.values()))[:, :0]
        return Known(nothing_B0, nothing_B0, condition)
    low_BE = torch.where(present[LOW][:, None], values[LOW], 0.0) if LOW in present else values[LOW]
    return Known(low_BE, values[DOUBT], condition)


def judge(trained: nn.Module, easel: Easel) -> Judged:
    """Loss of its pictures (but for a rest that processes cannot share) under noise that is always the same; conditions
    are known. Raises `SettingsError` where there is none for each process."""
    n, size = len(easel.latents), easel.group.size
    if n < size:
        raise SettingsError(f"{n} validation pictures are too few for {size} processes; lower execution.processes")
    starts = np.arange(0, n // size * size, easel.size)
    counts = np.minimum(easel.size, n // size * size - starts)
    losses = [
        float(trained(easel.make(np.arange(start, start + count), int(start), 0.0), None))
        for start, count in zip(starts, counts, strict=True)
    ]
    loss = float(np.average(losses, weights=counts))
    return Judged(loss, -loss)


def unknown(conditions: Conditions, n: int, device: torch.device) -> Known:
    """Nothing is known of any row."""
    size = conditions.sizes.get(LOW, 0)
    none_BE, all_BE = torch.zeros(n, size, device=device), torch.ones(n, size, device=device)
    return Known(none_BE, all_BE, Condition({DOUBT: all_BE} if size else {}, {}))


@torch.no_grad()
def paint(
    painter: Painter, conditions: Conditions, components: Mapping[str, Tensor], noise_BCHW: Tensor,
    settings: ReconstructSettings,
) -> Tensor:  # fmt: skip
    """Latents (B, C, H, W) of conditions, from noise of variance 1.

    Raises `SettingsError` for a sampler of the other kind.
    """
    name, is_flow = settings.sampler, painter.settings.prediction == "flow"
    if name == "auto":
        name = "heun_flow" if is_flow else "dpm_solver_pp_2m"
    if (name in FLOW_SAMPLERS) != is_flow:
        raise SettingsError(
            f"reconstruct.sampler = {name!r} is not one for a generator of prediction = {painter.settings.prediction!r}"
        )
    n, noise_BCHW = len(noise_BCHW), settings.temperature * noise_BCHW
    condition = painter.embed(known_of(conditions, components, {}), n)
    null = painter.embed(unknown(conditions, n, noise_BCHW.device), n)
    denoise = guided(painter.predict, condition, null, settings.guidance)
    times = even_times(settings.sampling_steps, settings.shift if is_flow else 1.0, settings.last_time)
    if name in FLOW_SAMPLERS:
        return (euler_flow if name == "euler_flow" else heun_flow)(denoise, noise_BCHW, times)
    return (ddim if name == "ddim" else dpm_solver_pp_2m)(denoise, noise_BCHW, times, painter.process)


def noise_of(seed: int, image_ids: list[str], sample: int, shape: tuple[int, int, int]) -> Tensor:
    """Noise (B, C, H, W) that follows from seed, image and sample alone."""
    draws = []
    for image in image_ids:
        entropy = [seed, sample, *image.encode()]
        state = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        draws.append(torch.randn(shape, generator=torch.Generator().manual_seed(state)))
    return torch.stack(draws)
