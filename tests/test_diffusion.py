"""Processes, loss, guidance and samplers: equal to diffusers' schedulers, and true to distributions that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from scipy.stats import multivariate_normal, norm, qmc
from torch import Tensor

from synapse_diffusion.diffusion.gaussian import GaussianPictures
from synapse_diffusion.diffusion.guidance import guided
from synapse_diffusion.diffusion.processes import Betas, Cosine, Process, RectifiedFlow
from synapse_diffusion.diffusion.samplers import ddim, dpm_solver_pp_2m, euler_flow, even_times, heun_flow
from synapse_diffusion.diffusion.training import denoising_loss, logit_normal_times, noised, spread_times

PROCESSES: list[Process] = [Cosine(), Betas(), Betas(1e-4, 0.02, spacing="linear"), RectifiedFlow()]
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
Sampler = Callable[[Callable[[Tensor, float], Tensor], Tensor, Sequence[float]], Tensor]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_network(x: Tensor, t: float) -> Tensor:
    """Neither linear nor even."""
    return torch.tanh(1.3 * x + x.roll(1, -1) - t) + 0.2 * x * t


def test_tables_are_diffusers() -> None:
    t = torch.arange(1, 1000, dtype=torch.float64) / 1000
    for process, given in (
        (Betas(), STABLE),
        (Betas(1e-4, 0.02, spacing="linear"), {"beta_schedule": "linear"}),
        (Cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
    ):
        alpha, sigma = process.coefficients(t)
        expected = DDIMScheduler(**given).alphas_cumprod[:-1].double()
        assert torch.allclose(alpha.square(), expected, rtol=2e-5, atol=1e-7)
        assert torch.allclose(sigma.square(), 1 - expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_process_goes_there_and_back(process: Process) -> None:
    alpha, sigma = process.path([0.0, 0.001, 0.3, 0.9, 1.0])
    assert (alpha[0], sigma[0]) == (1, 0)
    assert alpha == sorted(alpha, reverse=True)
    assert sigma == sorted(sigma)
    single = process.coefficients(torch.tensor([0.001, 0.3, 0.9]))  # no cancellation in single precision
    assert torch.allclose(torch.stack(single), torch.tensor([alpha[1:4], sigma[1:4]]), rtol=1e-5)
    x0, noise = draw(2, 3), draw(2, 3, seed=1)
    for a, s in zip(alpha, sigma, strict=True):
        target = process.target(x0, noise, torch.tensor(a), torch.tensor(s))
        back = process.estimate(a * x0 + s * noise, target, a, s)
        assert torch.allclose(torch.stack(back), torch.stack([x0, noise]), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*__array__ implementation:DeprecationWarning")  # diffusers' with NumPy 2
@pytest.mark.parametrize("steps", [1, 8, 20])
@pytest.mark.parametrize("kind", ["ddim", "dpm_solver_pp_2m"])
def test_samplers_are_diffusers(kind: str, steps: int) -> None:
    given = {**STABLE, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    x = draw(2, 3, 8, 8)
    if kind == "ddim":
        scheduler, sampler = DDIMScheduler(**given, clip_sample=False), ddim
    else:
        scheduler, sampler = DPMSolverMultistepScheduler(**given), dpm_solver_pp_2m
        assert (scheduler.config.algorithm_type, scheduler.config.solver_order) == ("dpmsolver++", 2)
    scheduler.set_timesteps(steps)
    times = [float(t + 1) / 1000 for t in scheduler.timesteps] + [0.0]
    assert times == pytest.approx(even_times(steps), abs=1e-3)
    theirs = x
    for t in scheduler.timesteps:
        theirs = scheduler.step(some_network(theirs, float(t + 1) / 1000), t, theirs).prev_sample
    assert torch.allclose(sampler(some_network, x, times, Betas()), theirs, atol=1e-4)


def test_euler_is_diffusers() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=even_times(9)[:-1])
    x = theirs = draw(2, 3, 8, 8)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        theirs = scheduler.step(some_network(theirs, float(sigma)), t, theirs).prev_sample
    times = even_times(9, shift=3.0)
    assert times == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)
    assert torch.allclose(euler_flow(some_network, x, times), theirs, atol=1e-4)
    # x0 and eps that straight lines imply, put together again, are Euler's step
    assert torch.allclose(ddim(some_network, x, times, RectifiedFlow()), theirs, atol=1e-4)


def test_heun_is_diffusers() -> None:
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(7)
    x = theirs = draw(2, 3, 8, 8)
    for t in scheduler.timesteps:
        theirs = scheduler.step(some_network(theirs, float(t) / 1000), t, theirs).prev_sample
    times = [float(t) / 1000 for t in scheduler.timesteps[::2]] + [0.0]
    assert len(times) == 8
    assert torch.allclose(heun_flow(some_network, x, times), theirs, atol=1e-4)


WEIGHT, MEAN = torch.tensor([0.3, 0.7]).double(), torch.tensor([[-2.0, 1.0], [2.0, 0.5]]).double()
COVARIANCE = torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.3, -0.1], [-0.1, 0.6]]]).double()


def mixture_prediction(process: Process, x: Tensor, t: float) -> Tensor:
    """The best prediction of v or u for pictures of a mixture of two Gaussians: from E[x_0 | x_t]."""
    (alpha,), (sigma,) = process.path([t])
    each, log_weight = [], []
    for weight, mean, covariance in zip(WEIGHT, MEAN, COVARIANCE, strict=True):
        noisy = alpha**2 * covariance + sigma**2 * torch.eye(2)
        here = multivariate_normal(alpha * mean.numpy(), noisy.numpy()).logpdf(x.numpy())
        log_weight.append(weight.log() + torch.from_numpy(here))
        each.append(mean + alpha * (x - alpha * mean) @ torch.linalg.solve(noisy, covariance))
    posterior = torch.softmax(torch.stack(log_weight), 0)
    x0 = (posterior[:, :, None] * torch.stack(each)).sum(0)
    return process.target(x0, (x - alpha * x0) / sigma, torch.tensor(alpha), torch.tensor(sigma))


def quasi_random_noise(power: int, dimensions: int) -> Tensor:
    """2^power normal numbers, evenly spread, so that moments are the sampler's and not chance's."""
    uniform = qmc.Sobol(dimensions, seed=0).random_base2(power)
    return torch.from_numpy(np.asarray(norm.ppf(uniform)))


SAMPLERS: list[tuple[str, Process, Sampler, int]] = [
    ("ddim", Cosine(), partial(ddim, process=Cosine()), 200),
    ("ddim, linear betas", PROCESSES[2], partial(ddim, process=PROCESSES[2]), 250),
    ("dpm", Cosine(), partial(dpm_solver_pp_2m, process=Cosine()), 60),
    ("dpm, flow", RectifiedFlow(), partial(dpm_solver_pp_2m, process=RectifiedFlow()), 60),
    ("euler", RectifiedFlow(), euler_flow, 200),
    ("heun", RectifiedFlow(), heun_flow, 30),
]


@pytest.mark.parametrize(("name", "process", "sampler", "steps"), SAMPLERS, ids=[row[0] for row in SAMPLERS])
def test_mixture_has_its_moments(name: str, process: Process, sampler: Sampler, steps: int) -> None:
    noise = quasi_random_noise(13, 2)
    x = sampler(partial(mixture_prediction, process), noise, even_times(steps))
    mean = WEIGHT @ MEAN
    covariance = (WEIGHT[:, None, None] * (COVARIANCE + (MEAN - mean)[:, :, None] * (MEAN - mean)[:, None, :])).sum(0)
    scale = covariance.diagonal().sqrt()
    assert ((x.mean(0) - mean).abs() / scale).max() < 0.02
    assert ((torch.cov(x.T) - covariance).abs() / torch.outer(scale, scale)).max() < 0.02
    first = x[:, 0] < 0  # the two hardly overlap there
    assert float(first.double().mean()) == pytest.approx(0.3, rel=0.02)
    spread = COVARIANCE[0].diagonal().sqrt()
    assert ((torch.cov(x[first].T) - COVARIANCE[0]).abs() / torch.outer(spread, spread)).max() < 0.03


def test_second_order_is_better_with_few_steps() -> None:
    noise = quasi_random_noise(8, 2)
    flow = partial(mixture_prediction, RectifiedFlow())
    exact = heun_flow(flow, noise, even_times(400))
    error = [
        float((sampler(flow, noise, even_times(steps)) - exact).square().mean().sqrt())
        for sampler, steps in ((euler_flow, 20), (euler_flow, 40), (heun_flow, 10), (heun_flow, 20))
    ]
    assert error[1] < 0.65 * error[0]
    assert error[3] < 0.4 * error[2]
    assert error[2] < error[0] / 2  # at equal evaluations


@pytest.mark.parametrize("process", [Cosine(), RectifiedFlow()])
def test_guided_gaussian_is_known(process: Process) -> None:
    """Of Gaussians of equal variance, guidance extrapolates the mean at every t, and keeps the variance."""
    variance, known, null = 0.25, torch.tensor([1.0, 0.0]).double(), torch.tensor([0.5, -0.5]).double()

    def model(x: Tensor, t_1: Tensor, embedded: tuple[Tensor, ...]) -> Tensor:
        alpha, sigma = (each.clamp_min(1e-12) for each in process.coefficients(t_1[:, None]))
        (mean,) = embedded
        x0 = mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x - alpha * mean)
        return process.target(x0, (x - alpha * x0) / sigma, alpha, sigma)

    noise = quasi_random_noise(12, 2)
    conditions = [(mean.expand(len(noise), 2),) for mean in (known, null)]
    for scale in (0.0, 1.0, 3.0):
        denoise = guided(model, conditions[0], conditions[1], scale)
        x = dpm_solver_pp_2m(denoise, noise, even_times(60), process)
        assert torch.allclose(x.mean(0), null + scale * (known - null), atol=0.01)
        assert torch.allclose(torch.cov(x.T), variance * torch.eye(2).double(), atol=0.02 * variance)


def test_guidance_asks_once_a_step() -> None:
    asked: list[int] = []

    def model(x: Tensor, t_1: Tensor, embedded: tuple[Tensor, ...]) -> Tensor:
        asked.append(len(x))
        return x * embedded[0][:, None] + t_1

    x, known, null = draw(3, 5), (torch.tensor([1.0, 2.0, 3.0]),), (torch.zeros(3),)
    for scale, rows in ((1.0, 3), (0.0, 3), (2.5, 6)):
        expected = scale * known[0][:, None] * x + 0.5
        assert torch.allclose(guided(model, known, null, scale)(x, 0.5), expected)
        assert asked.pop() == rows
    limited = guided(model, known, null, 2.5, interval=(0.2, 0.6))
    for t, rows in ((0.1, 3), (0.2, 6), (0.6, 6), (0.7, 3)):
        factor = 2.5 if rows == 6 else 1.0
        assert torch.allclose(limited(x, t), factor * known[0][:, None] * x + t)
        assert asked.pop() == rows
    conditional = guided(model, known, null, 1.0)(x, 0.5)
    plain = guided(model, known, null, 2.5)(x, 0.5)
    whole, half = (guided(model, known, null, 2.5, rescale=r)(x, 0.5) for r in (1.0, 0.5))
    assert torch.allclose(whole.std(1), conditional.std(1), rtol=1e-5)
    assert torch.allclose(half, (plain + whole) / 2, atol=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_loss_is_the_error_of_the_picture_under_its_weight(process: Process) -> None:
    x0, noise, t = draw(6, 3, 4, 4), draw(6, 3, 4, 4, seed=1), torch.linspace(0.02, 0.98, 6)
    a = 0.7

    def model(x: Tensor, t_B: Tensor, condition: float) -> Tensor:
        return condition * x

    x_t = noised(process, x0, noise, t)
    expected, plain = [], []
    for k, (alpha, sigma) in enumerate(zip(*process.path(t.tolist()), strict=True)):
        picture, _ = process.estimate(x_t[k], a * x_t[k], alpha, sigma)
        weight = min((alpha / sigma) ** 2, 5.0)
        expected.append(weight * float((picture - x0[k]).square().mean()))
        plain.append(float((picture - x0[k]).square().mean()) / sigma**2)
    weighted = denoising_loss(model, process, x0, a, noise, t, gamma=5.0)
    assert float(weighted) == pytest.approx(np.mean(expected), rel=1e-4)
    whole = denoising_loss(model, process, x0, a, noise, t)
    assert float(whole) == pytest.approx(np.mean(plain), rel=1e-4)
    halves = [denoising_loss(model, process, x0[s], a, noise[s], t[s]) for s in (slice(0, 3), slice(3, 6))]
    assert torch.allclose(whole, torch.stack(halves).mean())


def test_loss_of_a_right_answer_is_zero_and_ends_are_finite() -> None:
    x0, noise, t = draw(4, 6), draw(4, 6, seed=1), torch.tensor([0.0, 0.3, 0.8, 1.0])
    for process in PROCESSES:
        alpha, sigma = process.coefficients(t[:, None])
        answer = process.target(x0, noise, alpha, sigma)
        for gamma in (None, 5.0):
            assert denoising_loss(lambda x, t, c: c, process, x0, answer, noise, t, gamma) == 0
            assert denoising_loss(lambda x, t, c: c + 1, process, x0, answer, noise, t, gamma).isfinite()


def test_gaussian_pictures_need_no_network() -> None:
    """Of normal pictures whose colours' cosines are independent the fitted Gaussian, with answers of zero, is right:
    drawn pictures have their moments, and those whose numbers are known are drawn around what these tell."""
    shape, n = (3, 4, 4), 20_000
    like = GaussianPictures(shape, 2)
    like.colour_CC.copy_(torch.linalg.qr(draw(3, 3, seed=1))[0])
    like.told_ECHW.copy_(draw(2, *shape, seed=2))
    power = torch.exp(draw(*shape, seed=3))
    known = draw(n, 2, seed=4)
    z = torch.einsum("ne,echw->nchw", known, like.told_ECHW) + power.sqrt() * draw(n, *shape, seed=5)
    x0 = 3 + like.back(z)
    fitted = GaussianPictures(shape, 2)
    fitted.fit(x0, (known - known.mean(0)) / known.std(0))
    for process in (RectifiedFlow(), Cosine()):
        for doubt in (0.0, 1.0):
            rows = known[:4000] * (1 - doubt)
            expected = fitted.expect(rows, torch.full_like(rows, doubt))

            def denoise(x: Tensor, t: float, process: Process = process, e: tuple[Tensor, Tensor] = expected) -> Tensor:
                return fitted.predict(process, x, torch.tensor([t]), e, torch.zeros_like(x))

            noise = draw(4000, *shape, seed=6)
            times = even_times(40, shift=3.0)
            if isinstance(process, Cosine):
                drawn = dpm_solver_pp_2m(denoise, noise, times, process)
            else:
                drawn = heun_flow(denoise, noise, times)
            left = drawn - 3 - like.back(torch.einsum("ne,echw->nchw", rows, like.told_ECHW))
            spread = like.into(left).square().mean(0)
            assert torch.allclose(spread, power + doubt * like.told_ECHW.square().sum(0), rtol=0.12)
            assert float(left.mean(0).abs().max()) < 0.15
            # with the error that is left as the answer, the prediction is exact
            x, alpha, sigma = 0.6 * x0[:8] + 0.4 * noise[:8], torch.tensor(0.6), torch.tensor(0.4)
            if isinstance(process, RectifiedFlow):
                some = (expected[0][:8], expected[1][:8])
                wanted = process.target(x0[:8], noise[:8], alpha, sigma)
                missing = fitted.into(wanted - fitted.predict(process, x, sigma[None], some, torch.zeros_like(x)))
                total = alpha.square() * some[1] + sigma.square()
                answer = fitted.back(missing / (some[1] / total).sqrt())
                assert torch.allclose(fitted.predict(process, x, sigma[None], some, answer), wanted, atol=1e-4)


def test_times_are_spread() -> None:
    uniform = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    t = spread_times(uniform)
    assert torch.equal((t * 1000).long(), torch.arange(1000))
    middle = logit_normal_times(torch.from_numpy(norm.ppf(t.double().numpy())), 0.5, 2.0)
    # quartiles of the normal numbers, through the logistic function
    expected = 1 / (1 + np.exp(-(0.5 + 2 * norm.ppf([0.25, 0.5, 0.75]))))
    assert np.quantile(middle.numpy(), [0.25, 0.5, 0.75]) == pytest.approx(expected, abs=2e-3)
    assert even_times(4, last=0.4) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.0])
    assert even_times(1, last=0.4) == [1.0, 0.0]
    with pytest.raises(ValueError, match="at least one step, got 0"):
        even_times(0)
