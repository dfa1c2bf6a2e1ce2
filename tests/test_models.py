"""Decoders, ridge and losses: shapes, gradients, people, montages; equal to published forms and to naive loops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from torch import nn
from torch.nn import functional

from synapse_diffusion import losses
from synapse_diffusion.models.atm import AttentionBlock
from synapse_diffusion.models.base import Decoder, Shape
from synapse_diffusion.models.brain_module import BrainModule, flatten
from synapse_diffusion.models.compact import CompactDecoder
from synapse_diffusion.models.eegnet import EEGNet
from synapse_diffusion.models.fourier import convolve, convolve_each, transform_length
from synapse_diffusion.models.linear import binned
from synapse_diffusion.models.ridge import plan_ridge
from synapse_diffusion.models.tsconv import TemporalSpatial, TSConv
from synapse_diffusion.training.decoders import DECODERS

SMALL: dict[str, dict[str, Any]] = {
    "compact": {}, "eegnet": {}, "tsconv": {}, "atm": {}, "brain_module": {"components": 12, "width": 10, "layers": 3},
}  # fmt: skip
NAMES = list(SMALL)


def montage(n: int, seed: int = 0) -> torch.Tensor:
    """Sensors (C, 3) in m at random places of the upper half of a head."""
    direction = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    direction[:, 2].abs_()
    return 0.1 * functional.normalize(direction, dim=1) + torch.tensor([0.0, 0.0, 0.04])


def shape_with(positions: torch.Tensor, n_times: int = 50, n_people: int = 3, n_outputs: int = 5) -> Shape:
    rows = tuple(tuple(None if math.isnan(v) else v for v in row) for row in positions.tolist())
    return Shape(len(positions), n_times, n_outputs, n_people, 100.0, rows)


def make(name: str, shape: Shape | None = None, seed: int = 0, **settings: Any) -> Decoder:
    torch.manual_seed(seed)
    return DECODERS[name](shape or shape_with(montage(9)), **{**SMALL[name], **settings})


def batch(n: int = 8, n_sensors: int = 9, n_times: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, n_sensors, n_times, generator=generator), torch.arange(n) % 3


def stir(model: nn.Module) -> nn.Module:
    """What begins at zero no longer does."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name: str) -> None:
    x, person = batch()
    settings: list[dict[str, Any]] = [{}]
    if name in ("tsconv", "atm", "brain_module"):
        settings.append({"projector": "residual"})
    for given in settings:
        model = stir(make(name, **given))
        out = model(x, person)
        assert out.shape == (8, 5)
        torch.autograd.backward(functional.cross_entropy(out, torch.arange(8) % 5))
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert bool(parameter.grad.isfinite().all()), key
            assert bool(parameter.grad.any()), key


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_is_decoded_alike_in_any_batch(name: str) -> None:
    x, person = batch()
    off: dict[str, Any] = {"dropout": 0.0, **({"sensor_dropout": 0.0} if name == "brain_module" else {})}
    model = stir(make(name, **off))
    for mode in (True, False):
        model.train(mode)
        together = model(x, person)
        alone = torch.cat([model(x[k : k + 1], person[k : k + 1]) for k in range(len(x))])
        assert torch.allclose(together, alone, atol=1e-4, rtol=1e-4), mode


@pytest.mark.parametrize("name", NAMES)
def test_people_have_weights_of_their_own(name: str) -> None:
    x, person = batch()
    model = stir(make(name)).eval()
    assert not torch.allclose(model(x, person), model(x, (person + 1) % 3), atol=1e-4)
    alone = make(name, shape_with(montage(9), n_people=1))
    assert sum(p.numel() for p in alone.parameters()) < sum(p.numel() for p in model.parameters())
    assert alone(x, torch.zeros(8, dtype=torch.long)).shape == (8, 5)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_near(name: str) -> None:
    positions = montage(9)
    positions[3] = torch.nan
    model = stir(make(name, shape_with(positions))).eval()
    x, person = batch()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x, person)
    exact = model(x, person)
    assert (rough.float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_is_a_model(name: str) -> None:
    one, same, other = (torch.cat([p.flatten() for p in make(name, seed=s).parameters()]) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n_times", "n_sensors"), [(4, 2), (17, 1), (130, 9)])
def test_short_windows_and_few_sensors(name: str, n_times: int, n_sensors: int) -> None:
    model = make(name, shape_with(montage(n_sensors), n_times))
    assert model(*batch(4, n_sensors, n_times)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_each_decoder_finds_a_difference_in_single_trials(name: str) -> None:
    """Two classes differ by a bump at one sensor; the start is chance, sixty steps of Adam find it."""
    generator = torch.Generator().manual_seed(3)
    x, label = torch.randn(256, 9, 50, generator=generator), torch.arange(256) % 2
    x[:, 4, 20:32] += 1.5 * label[:, None] * torch.hann_window(12)
    person = torch.arange(256) // 2 % 3
    model = make(name, shape_with(montage(9), n_outputs=2), dropout=0.2)
    model.fit_statistics(x[:192], label[:192], person[:192])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(x[:192], person[:192]), label[:192]))
        optimizer.step()
    model.eval()
    assert (model(x[192:], person[192:]).argmax(1) == label[192:]).float().mean() > 0.65


def test_tsconv_is_the_published_two_steps() -> None:
    """Convolution of 25, average pooling of 51 by 5, then all sensors, as in the authors' code, at its sizes."""
    torch.manual_seed(0)
    ours = TemporalSpatial(63, 250, 250.0, 40, 40, 0.5).double()
    published = nn.Sequential(
        nn.Conv2d(1, 40, (1, 25)), nn.AvgPool2d((1, 51), (1, 5)), nn.GroupNorm(1, 40), nn.ELU(),
        nn.Conv2d(40, 40, (63, 1)), nn.GroupNorm(1, 40), nn.ELU(), nn.Dropout(0.5), nn.Conv2d(40, 40, 1),
    ).double()  # fmt: skip
    stir(ours)
    n = sum(p.numel() for p in ours.parameters())
    assert n == sum(p.numel() for p in published.parameters()) == 103_680
    state = [
        ours.temporal_FL[:, None, None], ours.temporal_bias, ours.norm.gain, ours.norm.bias,
        ours.spatial.weight.view(40, 63, 40).transpose(1, 2)[..., None], ours.spatial.bias,
        ours.spatial_norm.gain, ours.spatial_norm.bias, ours.mix.weight[..., None, None], ours.mix.bias,
    ]  # fmt: skip
    with torch.no_grad():
        for parameter, value in zip(published.parameters(), state, strict=True):
            parameter.copy_(value)
    x = torch.randn(4, 63, 250, dtype=torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        ours.to(dtype).eval()
        published.to(dtype).eval()
        expected = published(x.to(dtype)[:, None])[:, :, 0].transpose(1, 2).flatten(1)
        assert expected.shape == (4, 36 * 40)  # NICE's projector takes 1,440 features
        found = ours(x.to(dtype))
        assert (found - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize(("n_times", "kernel"), [(75, 17), (250, 31), (9, 31), (40, 16)])
def test_convolutions_by_fourier_transforms_are_torchs(n_times: int, kernel: int) -> None:
    """Forward and backward; a kernel longer than the signal and one of even length too."""
    torch.manual_seed(0)
    ends = ((kernel - 1) // 2, kernel // 2)
    for groups, ours in ((1, convolve), (6, lambda x, k, n: convolve_each(x, k[:, 0], n))):
        x = torch.randn(3, 6, n_times, dtype=torch.float64, requires_grad=True)
        kernels = torch.randn(12 if groups == 1 else 6, 6 // groups, kernel, dtype=torch.float64, requires_grad=True)
        found = ours(x, kernels, transform_length(n_times, kernel))
        expected = functional.conv1d(functional.pad(x, ends), kernels, groups=groups)
        assert torch.allclose(found, expected, atol=1e-12)
        wanted = torch.randn_like(expected)
        for a, b in zip(*(torch.autograd.grad(y, (x, kernels), wanted) for y in (found, expected)), strict=True):
            assert torch.allclose(a, b, atol=1e-11)


def test_compacts_filters_are_a_convolution_layers() -> None:
    model, x = CompactDecoder(shape_with(montage(9))), torch.randn(4, 16, 50)
    assert torch.allclose(model._filtered(x), model.temporal(x), atol=1e-5)


@pytest.mark.parametrize("people", [1, 3])
def test_a_signals_gradient_goes_through_the_closed_form_start(people: int) -> None:
    """Maps of sensors and latencies integrate it."""
    model = CompactDecoder(replace(shape_with(montage(9)), starts=people)).double().eval()
    stir(model)
    torch.manual_seed(0)
    model.start.normal_()
    x, direction = (torch.randn(4, 9, 50, dtype=torch.float64) for _ in range(2))
    (slope,) = torch.autograd.grad(model(x.requires_grad_(), torch.arange(4) % 3).sum(), x)
    with torch.no_grad():
        above, below = (model(x + step * direction, torch.arange(4) % 3).sum() for step in (1e-5, -1e-5))
    assert float((slope * direction).sum()) == pytest.approx(float(above - below) / 2e-5, rel=1e-6)


def test_eegnet_is_the_published_order() -> None:
    """Temporal filters of every sensor, gain and shift, then the spatial ones of each."""
    model = EEGNet(Shape(6, 40, 2, 1, 32.0)).double()
    stir(model)
    x = torch.randn(3, 6, 40, dtype=torch.float64)
    kernel = model.temporal.shape[1]
    padded = functional.pad(x[:, None], ((kernel - 1) // 2, kernel // 2))
    each_BFCT = functional.conv2d(padded, model.temporal[:, None, None])
    each_BFCT = each_BFCT * model.gain[:, None, None] + model.shift[:, None, None]
    spatial = model.spatial[:, None, :, None]
    expected = functional.conv2d(each_BFCT, spatial, groups=8)[:, :, 0]
    assert torch.allclose(model.filter(x, torch.zeros(3, dtype=torch.long)), expected, atol=1e-12)


@pytest.mark.parametrize(("n_sensors", "n_times", "n_outputs"), [(64, 128, 2), (56, 160, 2), (22, 256, 4)])
def test_eegnet_8_2_has_the_published_layers(n_sensors: int, n_times: int, n_outputs: int) -> None:
    """Table 2 at 128 Hz: 64 F1, 2 F1; C D F1, 2 D F1; 16 D F1, F2 D F1, 2 F2; N F2 T / 32 and the biases."""
    model = EEGNet(Shape(n_sensors, n_times, n_outputs, 1, 128.0))
    f1, d, f2 = 8, 2, 16
    layers = 64 * f1 + 2 * f1 + n_sensors * d * f1 + 2 * d * f1 + 16 * d * f1 + f2 * d * f1 + 2 * f2
    assert sum(p.numel() for p in model.parameters()) == layers + n_outputs * f2 * (n_times // 32) + n_outputs


def test_atms_attention_is_torchs_own_layer() -> None:
    torch.manual_seed(0)
    ours = AttentionBlock(40, 0.0).double()
    theirs = nn.TransformerEncoderLayer(40, 4, 256, 0.0, "gelu", batch_first=True, dtype=torch.float64)
    state = ours.state_dict()
    names = {
        "self_attn.in_proj_": "query_key_value.", "self_attn.out_proj.": "out.", "linear1.": "feed.0.",
        "linear2.": "feed.3.", "norm1.": "norm.", "norm2.": "feed_norm.",
    }  # fmt: skip
    theirs.load_state_dict({a + part: state[b + part] for a, b in names.items() for part in ("weight", "bias")})
    x_BNT = torch.randn(3, 10, 40, dtype=torch.float64)
    assert torch.allclose(ours(x_BNT), theirs(x_BNT), atol=1e-12)


def test_the_brain_module_has_the_published_layers() -> None:
    """Defossez et al. 2023, section 4: 270 virtual sensors, 32 x 32 harmonics, five blocks of 320 channels, dilations
    2^(2k mod 5) and 2^((2k + 1) mod 5), a gate, 640 channels at the end; the head sums over time (Benchetrit's)."""
    model = make("brain_module", shape_with(montage(20), 50, 4, 64), components=270, width=320, layers=5)
    assert isinstance(model, BrainModule)
    three = 320 * 320 * 3 + 320
    block = 2 * (three + 2 * 320) + 320 * 640 * 3 + 640
    attention, mixing, people = 270 * 2 * 32**2, 270 * 270 + 270, 4 * 270 * 270
    blocks = 5 * block - (320 - 270) * 320 * 3  # the first one hears 270
    ends = 320 * 640 + 640 + (50 + 1) + 640 * 64 + 64
    assert sum(p.numel() for p in model.parameters()) == attention + mixing + people + blocks + ends
    dilations = [m.dilation[0] for m in model.modules() if isinstance(m, nn.Conv1d) and m.out_channels == 320]
    assert dilations == [1, 2, 4, 8, 16, 1, 2, 4, 8, 16]


def test_the_brain_module_sees_positions_and_takes_another_montage() -> None:
    x, person = batch()
    model = make("brain_module").eval()
    assert isinstance(model, BrainModule)
    before = model(x, person)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(4))
    model.set_positions(montage(9)[order])
    assert torch.allclose(model(x[:, order], person), before, atol=1e-5)  # sensors are known by place alone
    assert not torch.allclose(model(x, person), before, atol=1e-3)
    model.set_positions(montage(14, seed=5))
    assert model(batch(8, 14)[0], person).shape == (8, 5)
    other = make("brain_module", shape_with(montage(14, seed=5)), seed=7).eval()
    other.load_state_dict(model.state_dict())  # no part of the weights' file depends on the montage
    assert torch.equal(other(batch(8, 14)[0], person), model(batch(8, 14)[0], person))


def test_sensors_without_position_have_learned_weights() -> None:
    x, person = batch()
    positions = montage(9)
    positions[[2, 6]] = torch.nan
    model = make("brain_module", shape_with(positions))
    assert isinstance(model, BrainModule)
    weights = model.merge.eval().weights()
    assert torch.allclose(weights.sum(1), torch.ones(12))
    assert model.merge.default_JU is not None
    ratio = weights[:, 2] / weights[:, 6]
    assert torch.allclose(ratio.log(), model.merge.default_JU[:, 0] - model.merge.default_JU[:, 1], atol=1e-4)
    with pytest.raises(ValueError, match="0 sensors without position, but weights for 2 such sensors"):
        model.set_positions(montage(9))
    unknown = make("brain_module", Shape(9, 50, 5, 3, 100.0))  # no positions at all: an older run, or a bare montage
    assert unknown(x, person).isfinite().all()


def test_sensor_dropout_leaves_out_neighbours_in_training_only() -> None:
    model = make("brain_module", shape_with(montage(60)), sensor_dropout=0.3)
    assert isinstance(model, BrainModule)
    merge, place = model.merge, flatten(montage(60))
    assert (place > 0).all()
    assert (place < 1).all()
    assert (merge.eval().weights() > 0).all()
    merge.train()
    torch.manual_seed(0)
    counts = []
    for _ in range(20):
        weights = merge.weights()
        out = weights[0] == 0
        assert torch.allclose(weights.sum(1), torch.ones(12))
        counts.append(int(out.sum()))
        if out.any():
            assert torch.cdist(place[out], place[out]).max() <= 0.6
    assert 0 < max(counts) < 60
    merge.dropout = 5.0  # nothing would be left: then nothing is left out
    assert merge.weights().isfinite().all()


def test_flattened_heads_agree_with_their_sphere() -> None:
    """Vertex in the middle, ears on one line through it at equal distance, the nose up."""
    centre = torch.tensor([0.0, 0.0, 0.04])
    vertex, left, right, front = flatten(
        centre + torch.tensor([[0.0, 0.0, 0.1], [-0.1, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]])
    )
    assert torch.allclose(vertex, torch.tensor([0.5, 0.5]))
    assert torch.allclose(left + right, torch.tensor([1.0, 1.0]))
    assert front[1] > 0.8
    assert front[0] == pytest.approx(0.5)


def regression(n: int = 90, n_sensors: int = 5, n_times: int = 24) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, n_sensors, n_times)).astype(np.float32).cumsum(2)
    y = binned(x, 4)[:, :3] * 0.3 + rng.standard_normal((n, 3)) + 2.0
    return x, y.astype(np.float32), np.arange(n) % 2


@pytest.mark.parametrize("n", [20, 90])  # fewer trials than features, and more
def test_ridge_is_scikit_learns(n: int) -> None:
    x, y, person = regression(n)
    features = binned(x, 4)
    unit = np.square(features - features.mean(0, dtype=np.float64)).sum() / features.shape[1]
    ours = plan_ridge(x, y, person, 2, 4, pooled=True).fit([0.3])
    theirs = Ridge(0.3 * unit).fit(features, y)
    assert np.allclose(ours.predict(x, person), theirs.predict(features), atol=1e-4)
    penalties = [0.001, 0.01, 0.1, 1.0, 10.0]
    chosen = plan_ridge(x, y, person, 2, 4, pooled=True).fit(penalties)
    search = RidgeCV([p * unit for p in penalties]).fit(features.astype(np.float64), y.astype(np.float64))
    assert chosen.penalty_P[0] * unit == pytest.approx(search.alpha_)
    assert np.allclose(chosen.predict(x, person), search.predict(features), atol=1e-4)


def test_ridge_of_each_person() -> None:
    x, y, person = regression()
    ours = plan_ridge(x, y, person, 2, 4, pooled=False).fit()
    for p in (0, 1):
        mine = person == p
        alone = plan_ridge(x[mine], y[mine], np.zeros(mine.sum(), np.int64), 1, 4, pooled=True).fit()
        assert np.allclose(ours.predict(x, person)[mine], alone.predict(x[mine], person[mine]), atol=1e-5)
    with pytest.raises(ValueError, match="person 2 has 0 trials"):
        plan_ridge(x, y, person, 3, 4, pooled=False).fit()


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return a, a + torch.randn(6, 4, generator=generator, dtype=torch.float64)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def test_info_nce_is_the_naive_loop() -> None:
    a, b = pairs()
    temperature = torch.tensor([0.2], dtype=torch.float64)
    rows = [-math.log(math.exp(cosine(a[i], b[i]) / 0.2) / sum(math.exp(cosine(a[i], c) / 0.2) for c in b))
            for i in range(6)]  # fmt: skip
    columns = [-math.log(math.exp(cosine(a[i], b[i]) / 0.2) / sum(math.exp(cosine(c, b[i]) / 0.2) for c in a))
               for i in range(6)]  # fmt: skip
    assert float(losses.info_nce(a, b, temperature, symmetric=False)) == pytest.approx(np.mean(rows))
    assert float(losses.info_nce(a, b, temperature)) == pytest.approx((np.mean(rows) + np.mean(columns)) / 2)
    same = torch.ones(6, 4)
    assert float(losses.info_nce(same, same, torch.ones(1))) == pytest.approx(math.log(6), rel=1e-6)


def test_siglip_is_the_naive_loop() -> None:
    a, b = pairs()
    t, bias = torch.tensor([0.1], dtype=torch.float64), torch.tensor([-3.0], dtype=torch.float64)
    total = sum(
        math.log1p(math.exp(-(1 if i == j else -1) * (cosine(a[i], b[j]) / 0.1 - 3)))
        for i in range(6)
        for j in range(6)
    )
    assert float(losses.siglip(a, b, t, bias)) == pytest.approx(total / 6)


def test_a_temperature_stays_in_its_range_and_comes_back() -> None:
    temperature = losses.Temperature()
    assert temperature().item() == pytest.approx(0.07)
    assert [p.shape for p in temperature.parameters()] == [(1,)]
    with torch.no_grad():
        temperature.log_1.fill_(5.0)
    value = temperature()
    assert value.item() == pytest.approx(1.0)
    value.sum().backward()
    assert temperature.log_1.grad is not None
    assert float(temperature.log_1.grad) == pytest.approx(1.0)
    with torch.no_grad():
        temperature.log_1.fill_(-50.0)
    assert temperature().item() == pytest.approx(0.01)


def test_distances_between_embeddings() -> None:
    a, b = pairs()
    assert float(losses.cosine_loss(a, b)) == pytest.approx(np.mean([1 - cosine(a[i], b[i]) for i in range(6)]))
    assert float(losses.squared_loss(a, b)) == pytest.approx(float((a - b).square().mean()))


def test_mmd_is_the_naive_loop_and_tells_samples_apart() -> None:
    a, b = pairs()
    b = b[:4] + 1
    both = torch.cat([a, b])
    mean = np.mean([float((p - q).square().sum()) for i, p in enumerate(both) for j, q in enumerate(both) if i != j])

    def kernel(p: torch.Tensor, q: torch.Tensor) -> float:
        return float(np.mean([math.exp(-float((p - q).square().sum()) / (w * mean)) for w in (0.5, 2.0)]))

    def average(p: torch.Tensor, q: torch.Tensor) -> float:
        return float(np.mean([kernel(u, v) for u in p for v in q]))

    expected = average(a, a) + average(b, b) - 2 * average(a, b)
    assert float(losses.mmd(a, b, [0.5, 2.0])) == pytest.approx(expected)
    assert float(losses.mmd(a, a)) == pytest.approx(0.0, abs=1e-12)
    a.requires_grad_()
    torch.autograd.backward(losses.mmd(a, b))
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_yes_and_no_weigh_alike() -> None:
    answer = (torch.arange(40)[:, None] % torch.tensor([2, 10, 40]) == 0).float()
    weight = losses.answer_weights(answer)
    assert torch.allclose((weight[1] * answer).sum(0), torch.tensor(20.0))
    assert torch.allclose((weight[0] * (1 - answer)).sum(0), torch.tensor(20.0))
    logit = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    p = torch.sigmoid(logit).double()
    each = [[-float(weight[int(answer[n, k]), k]) * math.log(p[n, k] if answer[n, k] else 1 - p[n, k])
             for k in range(3)] for n in range(40)]  # fmt: skip
    assert float(losses.balanced_yes_no(logit, answer, weight)) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(losses.balanced_yes_no(torch.zeros(40, 3), answer, weight)) == pytest.approx(math.log(2), rel=1e-5)
    assert losses.answer_weights(torch.zeros(5, 2)).isfinite().all()  # a question that nobody answers with yes


def test_losses_of_a_gathered_batch_have_the_gradient_of_the_whole() -> None:
    """Two halves, gathered, are one batch: nothing depends on how trials were dealt."""
    a, b = pairs()
    temperature = torch.tensor([0.2], dtype=torch.float64)
    halves = [a[:3].clone().requires_grad_(), a[3:].clone().requires_grad_()]
    whole = a.clone().requires_grad_()
    torch.autograd.backward(losses.info_nce(torch.cat(halves), b, temperature))
    torch.autograd.backward(losses.info_nce(whole, b, temperature))
    assert whole.grad is not None
    assert torch.allclose(torch.cat([h.grad for h in halves if h.grad is not None]), whole.grad)


def test_nice_has_1440_features_at_its_sizes() -> None:
    model = TSConv(Shape(63, 250, 768, 1, 250.0), projector="residual")
    head = 1440 * 768 + 768 + 768 * 768 + 768 + 2 * 768
    assert sum(p.numel() for p in model.parameters()) == 103_680 + head
