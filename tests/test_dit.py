"""Denoising networks: the published function, conditions that are known or not, rows that do not meet."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from synapse_diffusion.diffusion.processes import Cosine, RectifiedFlow
from synapse_diffusion.diffusion.samplers import ddim, even_times
from synapse_diffusion.diffusion.training import denoising_loss, spread_times
from synapse_diffusion.models.base import Dropout
from synapse_diffusion.models.conditioning import Condition, Denoiser
from synapse_diffusion.models.dit import DiT, patches, unpatched
from synapse_diffusion.models.prior import EmbeddingPrior

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import sampling

SIZES = {"eeg": 7, "meg": 5}
NAMES = ["pixels", "latents", "prior"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(name: str, dropout: float = 0.0) -> tuple[Denoiser, tuple[int, ...]]:
    torch.manual_seed(0)
    if name == "pixels":
        return DiT((3, 16, 8), SIZES, width=32, depth=2, heads=2, dropout=dropout), (3, 16, 8)
    if name == "latents":
        shape = (8, 6, 6)
        network = DiT(shape, SIZES, 4, positions="learned", width=32, depth=2, heads=2, patch=2, dropout=dropout)
        return network, shape
    return EmbeddingPrior(9, SIZES, width=32, depth=2, dropout=dropout), (9,)


def condition(name: str, n: int = 20) -> Condition:
    values = {"eeg": draw(n, 7, seed=1), "meg": draw(n, 5, seed=2)}
    present = {"eeg": torch.arange(n) % 2 == 0, "meg": torch.arange(n) % 3 == 0}
    if name == "latents":
        values["image"] = draw(n, 4, 9, 5, seed=3)
        present["image"] = torch.arange(n) % 5 < 2
    return Condition(values, present)


def rows(given: Condition, part: slice) -> Condition:
    return Condition({k: v[part] for k, v in given.values.items()}, {k: v[part] for k, v in given.present.items()})


def stir(model: nn.Module) -> None:
    """What begins at zero no longer does."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("name", NAMES)
def test_begins_at_zero_and_every_parameter_learns(name: str) -> None:
    model, shape = make(name)
    x, t, given = draw(20, *shape), torch.linspace(0, 1, 20), condition(name)
    answer = model(x, t, given)
    assert answer.shape == x.shape
    assert not bool(answer.any())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(4):  # exit, then modulation, then what the gates have let through
        optimizer.zero_grad()
        torch.autograd.backward((model(x, t, given) - x).square().mean())
        optimizer.step()
    for key, parameter in model.named_parameters():
        assert parameter.ndim > 0, key
        assert parameter.grad is not None, key
        assert bool(parameter.grad.isfinite().all()), key
        assert bool(parameter.grad.any()), key


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_the_same_in_any_batch(name: str) -> None:
    model, shape = make(name)
    stir(model)
    x, t, given = draw(20, *shape), torch.linspace(0, 1, 20), condition(name)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            together = model(x, t, given)
            parts = [slice(k, k + 1) for k in range(20)]
            alone = torch.cat([model(x[p], t[p], rows(given, p)) for p in parts])
            once = model.denoise(x, t[7:8], model.embed(given, 20))
        assert torch.allclose(together, alone, atol=1e-4, rtol=1e-4)
        assert torch.allclose(once[7], together[7], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_unknown_has_no_influence(name: str) -> None:
    model, shape = make(name)
    stir(model)
    x, t, given = draw(20, *shape), torch.linspace(0, 1, 20), condition(name)
    spoilt = Condition({k: v.clone() for k, v in given.values.items()}, given.present)
    for key, present in given.present.items():
        spoilt.values[key][~present] = torch.nan
    answer = model(x, t, given)
    spoilt_answer = model(x, t, spoilt)
    assert torch.equal(answer, spoilt_answer)
    torch.autograd.backward(spoilt_answer.sum())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    nothing = model(x, t, Condition({}, {}))
    unknown = ~torch.stack(list(given.present.values())).any(0)
    assert bool(unknown.any())
    assert torch.allclose(answer[unknown], nothing[unknown], atol=1e-5)
    for key in given.values:  # each is heard where it is known
        silent = Condition({k: v for k, v in given.values.items() if k != key}, given.present)
        heard = (model(x, t, silent) - answer).flatten(1).abs().amax(1) > 1e-3
        assert torch.equal(heard, given.present[key]), key
    everywhere = model(x, t, Condition(given.values, {}))
    masks = {k: torch.ones(20, dtype=torch.bool) for k in given.values}
    assert torch.equal(everywhere, model(x, t, Condition(given.values, masks)))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_near(name: str) -> None:
    model, shape = make(name)
    stir(model)
    x, t, given = draw(20, *shape), torch.linspace(0, 1, 20), condition(name)
    exact = model(x, t, given)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x, t, given)
    assert (rough.float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_drawn_for_the_whole_batch(name: str) -> None:
    model, shape = make(name, dropout=0.5)
    stir(model)
    x, t, given = draw(20, *shape), torch.linspace(0, 1, 20), condition(name)

    def with_share(rank: int, size: int, part: slice) -> Tensor:
        for module in model.modules():
            if isinstance(module, Dropout):
                module.share = (rank, size)
        torch.manual_seed(5)
        with torch.no_grad():
            answer: Tensor = model(x[part], t[part], rows(given, part))
        return answer

    whole = with_share(0, 1, slice(0, 20))
    halves = torch.cat([with_share(rank, 2, slice(10 * rank, 10 * rank + 10)) for rank in (0, 1)])
    assert torch.allclose(whole, halves, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(whole, with_share(1, 2, slice(0, 20)), atol=1e-2)


@pytest.mark.parametrize("size", [32, 48])
def test_function_is_the_published_one(size: int) -> None:
    model = sampling.make(size, "cpu")
    peer = sampling.twin(model, "gelu")
    x, label, t = draw(3, 3, size, size), torch.tensor([2, 5, sampling.CLASSES]), torch.tensor([1.0, 300.0, 1000.0])
    one_hot = nn.functional.one_hot(label, sampling.CLASSES + 1)[:, :-1].float()
    given = Condition({sampling.LABEL: one_hot}, {sampling.LABEL: label < sampling.CLASSES})
    with torch.no_grad():
        theirs = peer(x, t, label).sample
        assert theirs.std() > 0.1
        assert torch.allclose(model(x, t / 1000, given), theirs, atol=1e-4)


@pytest.mark.parametrize("kind", ["DDIM", "flow"])
def test_pictures_are_those_of_diffusers_loop(kind: str) -> None:
    model = sampling.make(32, "cpu")
    x, label = draw(2, 3, 32, 32), torch.tensor([3, 9])
    with torch.no_grad():
        ours = sampling.ours(model, kind, 4)(x, label)
        theirs = sampling.theirs(sampling.twin(model, "gelu"), kind, 4)(x, label)
    assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()


def test_sizes() -> None:
    count = {
        "pixels": DiT((3, 32, 32), {"clip": 512}),
        "latents": DiT((32, 16, 16), {"clip": 768}, 4, width=384, depth=6, heads=6, patch=2),
        "prior": EmbeddingPrior(512, {"eeg": 512}),
    }
    assert {name: sum(p.numel() for p in model.parameters()) for name, model in count.items()} == {
        "pixels": 1_348_016, "latents": 16_903_424, "prior": 6_961_152,
    }  # fmt: skip
    for model in count.values():
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_wrong_use_is_refused(name: str) -> None:
    model, shape = make(name)
    with pytest.raises(ValueError, match=r"knows the conditions .*'eeg', .*'meg'\], not \['ege'\]"):
        model(draw(2, *shape), torch.zeros(2), Condition({"ege": draw(2, 7)}, {}))
    with pytest.raises(ValueError, match="patch 4 must divide 16 x 9"):
        DiT((3, 16, 9), SIZES)


def test_patches_come_back() -> None:
    x = draw(2, 3, 8, 12)
    cut = patches(x, 4)
    assert cut.shape == (2, 6, 48)
    assert torch.equal(cut[1, 4], x[1, :, 4:8, 4:8].flatten())
    assert torch.equal(unpatched(cut, (3, 8, 12), 4), x)


@pytest.mark.parametrize("process", [RectifiedFlow(), Cosine()])
def test_prior_learns_a_conditional_distribution(process: RectifiedFlow | Cosine) -> None:
    """Embeddings given a brain's vector b: normal about (b, -b) with deviation 0.3; without b, about 0, wider."""
    torch.manual_seed(0)
    model = EmbeddingPrior(2, {"brain": 1}, width=64, depth=2)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    for step in range(250):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / 250)
        brain = torch.randn(128, 1)
        x0 = torch.cat([brain, -brain], 1) + 0.3 * torch.randn(128, 2)
        given = Condition({"brain": brain}, {"brain": torch.rand(128) < 0.8})
        loss = denoising_loss(model, process, x0, given, torch.randn(128, 2), spread_times(torch.rand(128)))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        noise = draw(1000, 2, seed=7)

        def sample(given: Condition) -> Tensor:
            embedded = model.embed(given, 1000)
            return ddim(lambda x, t: model.denoise(x, x.new_full((1,), t), embedded), noise, even_times(30), process)

        for b in (-1.0, 0.5):
            x = sample(Condition({"brain": torch.full((1000, 1), b)}, {}))
            assert torch.allclose(x.mean(0), torch.tensor([b, -b]), atol=0.08)
            assert torch.allclose(x.std(0), torch.tensor(0.3), atol=0.06)
        x = sample(Condition({}, {}))
        assert torch.allclose(x.std(0), torch.tensor(1.09**0.5), atol=0.1)
        assert torch.corrcoef(x.T)[0, 1] == pytest.approx(-1 / 1.09, abs=0.05)
