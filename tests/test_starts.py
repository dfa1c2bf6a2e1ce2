"""Closed-form starts: equal to ridge fits of others, blind to their own fold, and a space that images share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from synapse_diffusion.models.base import Shape
from synapse_diffusion.models.compact import CompactDecoder
from synapse_diffusion.models.starts import (
    FOLDS,
    PENALTIES,
    Moments,
    cross_fit,
    encoding_starts,
    folds_of,
    principal_axes,
    ridge_start,
)

RNG = np.random.default_rng(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.standard_normal(shape))


def counted(u: torch.Tensor, v: torch.Tensor, person: torch.Tensor, fold: torch.Tensor) -> Moments:
    moments = Moments()
    for at in (slice(0, 70), slice(70, None)):
        moments.add(u[at], v[at], person[at], fold[at])
    return moments


def test_each_map_is_the_ridge_regression_of_the_other_folds() -> None:
    n = 200
    u, fold, one = normal(n, 6) + 1.0, torch.arange(n) % FOLDS, torch.zeros(n, dtype=torch.int64)
    v = u @ normal(6, 3) + 3 * normal(n, 3) + 2.0
    maps = cross_fit(counted(u, v, one, fold), FOLDS)[0]
    errors, fits = {}, {}
    for penalty in PENALTIES:
        total = 0.0
        for k in range(FOLDS):
            kept, held = (fold != k).numpy(), (fold == k).numpy()
            unit = float((u[kept] - u[kept].mean(0)).square().sum()) / 6
            fits[penalty, k] = Ridge(alpha=penalty * unit).fit(u[kept].numpy(), v[kept].numpy())
            total += float(np.square(fits[penalty, k].predict(u[held].numpy()) - v[held].numpy()).sum())
        errors[penalty] = total
    best = min(PENALTIES, key=lambda p: errors[p])
    start = ridge_start(counted(u, v, one, fold), FOLDS)
    for k, (weight_UV, _, _) in enumerate(maps):
        np.testing.assert_allclose(weight_UV.numpy(), fits[best, k].coef_.T, atol=1e-8)
        np.testing.assert_allclose(start.bias_PJD[0, k].numpy(), fits[best, k].intercept_, atol=1e-5)


@pytest.mark.parametrize("alike", [True, False])
def test_people_depart_from_each_other_only_where_that_helps(alike: bool) -> None:
    n = 300
    u, fold, person = normal(n, 5), torch.arange(n) % FOLDS, torch.arange(n) // 150
    own = torch.stack([normal(5, 4)] * 2) if alike else normal(2, 5, 4)
    v = torch.einsum("nu,nuv->nv", u, own[person]) + normal(n, 4)
    maps = cross_fit(counted(u, v, person, fold), FOLDS)
    distance = max(float((maps[0][k][0] - maps[1][k][0]).abs().max()) for k in range(FOLDS))
    if alike:
        assert distance < 0.1
    for p in range(2):
        assert float((maps[p][0][0] - own[p]).abs().max()) < 0.35


def test_a_start_knows_nothing_of_the_noise_of_its_own_fold() -> None:
    """Signals that hold nothing: maps fitted to all trials seem to decode them, those without the fold do not."""
    n = 400
    concept = np.arange(n) // 4
    fold = torch.from_numpy(folds_of([str(c) for c in concept]))
    assert all(len(set(fold[concept == c].tolist())) == 1 for c in set(concept))
    x, y, one = normal(n, 30), normal(100, 8)[concept], torch.zeros(n, dtype=torch.int64)
    _, starts = encoding_starts({"eeg": counted(y, x, one, fold)}, FOLDS, 8)
    image, _ = encoding_starts({"eeg": counted(y, x, one, fold)}, FOLDS, 8)
    weight = starts["eeg"].weight_PJDF[0].double()

    def fit(weight_NDF: torch.Tensor) -> float:
        out = torch.einsum("nf,ndf->nd", x, weight_NDF)
        return float((torch.nn.functional.cosine_similarity(out, y @ image)).mean())

    assert fit(weight.mean(0).expand(n, -1, -1)) > 0.15
    assert fit(weight[fold]) < 0.05


def test_without_noise_people_s_mean_answer_is_the_image_s_place_in_the_shared_space() -> None:
    n = 400
    y, fold, person = normal(n, 6), torch.arange(n) % FOLDS, torch.arange(n) % 2
    maps = {"eeg": normal(2, 6, 20), "meg": normal(2, 6, 15)}
    x = {name: torch.einsum("nu,nuv->nv", y, of[person]) + 3.0 for name, of in maps.items()}
    image_UR, starts = encoding_starts({name: counted(y, v, person, fold) for name, v in x.items()}, FOLDS, 6)
    out = [
        (y @ maps[name][p] + 3.0) @ starts[name].weight_PJDF[p, 0].double().T + starts[name].bias_PJD[p, 0]
        for name in x
        for p in range(2)
    ]
    torch.testing.assert_close(torch.stack(out).mean(0), y @ image_UR, rtol=0.02, atol=0.02)
    wider, _ = encoding_starts({name: counted(y, v, person, fold) for name, v in x.items()}, FOLDS, 9)
    assert wider.shape == (6, 9)
    assert not wider[:, 6:].any()


def test_principal_axes_of_large_tables_span_the_same_space() -> None:
    basis = torch.linalg.qr(normal(2100, 12))[0]
    table = 30 * normal(2200, 12) @ basis.T + 0.01 * normal(2200, 2100)
    axes, size = principal_axes(table, 12)
    assert float(torch.linalg.svdvals(basis.T @ axes).min()) > 0.999
    assert float(size.min()) > 1000


def test_in_training_the_decoder_answers_by_the_map_without_the_fold() -> None:
    torch.manual_seed(0)
    decoder = CompactDecoder(Shape(5, 20, 3, 2, 100.0, starts=2)).eval()
    x, person, fold = torch.randn(8, 5, 20), torch.arange(8) % 2, torch.arange(8) % FOLDS
    features = decoder.linear_features(x, person)
    moments = counted(normal(200, 4), normal(200, features.shape[1]), torch.arange(200) % 2, torch.arange(200) % FOLDS)
    _, starts = encoding_starts({"": moments}, FOLDS, 3)
    decoder.begin_at(starts[""])
    weight, bias = starts[""].weight_PJDF, starts[""].bias_PJD
    held = torch.einsum("nf,ndf->nd", features, weight[person, fold]) + bias[person, fold]
    mean = torch.einsum("nf,ndf->nd", features, weight.mean(1)[person]) + bias.mean(1)[person]
    torch.testing.assert_close(decoder(x, person, fold), held, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoder(x, person), mean, rtol=1e-4, atol=1e-5)
