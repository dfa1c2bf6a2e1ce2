"""Columns of a table of reconstructions: published layers and sizes, stand-ins by name, and why one is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from synapse_diffusion.encoders.features import PUBLISHED, Column, Missing, Weights, build_columns, features
from synapse_diffusion.metrics import classes_of, n_way_table, squared_table, two_way_table

MEAN, STD = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class AlexNet(nn.Module):
    """Krizhevsky 2014's one-tower network, in the modules of torchvision, an eighth as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 24, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(48, 32, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.features(x))


class ResNet(nn.Module):
    """What matters of ResNet-50 here: features that are averaged, and a last layer that SwAV's file lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.avgpool, self.fc = nn.Conv2d(3, 6, 7, 32), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.fc(self.avgpool(self.conv1(x)).flatten(1)))


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow networks under torchvision's names: the package itself does not go with every torch."""
    module: Any = ModuleType("torchvision")
    module.__spec__ = ModuleSpec("torchvision", None)
    module.models = SimpleNamespace(alexnet=lambda weights: AlexNet(), resnet50=lambda weights: ResNet())
    monkeypatch.setitem(sys.modules, "torchvision", module)


def pictures(n: int = 4, side: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def by_name(found: list[Column | Missing]) -> dict[str, Any]:
    return {column.name: column for column in found}


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    return nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True).clamp(0, 1)


def test_alexnet_layers_are_after_relu_and_before_pooling(torchvision: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = AlexNet()
    torch.save(net.state_dict(), tmp_path / "alexnet-owt-7be5be79.pth")
    columns = by_name(build_columns(Weights(folder=str(tmp_path))))
    found = features(list(columns.values()), pictures())
    assert list(found) == ["AlexNet-2", "AlexNet-5"]
    x = (resized(pictures(), 256) - MEAN) / STD
    with torch.no_grad():
        second = net.features[:5](x)
        fifth = net.features[5:12](net.features[:5](x))
    assert second.shape[1:] == (24, 31, 31)
    assert np.allclose(found["AlexNet-2"], second.flatten(1).numpy(), atol=1e-5)
    assert np.allclose(found["AlexNet-5"], fifth.flatten(1).numpy(), atol=1e-5)
    assert found["AlexNet-2"].min() == 0.0
    first = columns["AlexNet-2"]
    assert first.encoder is columns["AlexNet-5"].encoder
    assert first.about | {"digest": ""} == {
        "name": "AlexNet-2", "use": "two_way", "network": "alexnet-owt-7be5be79", "layer": "conv2", "token": "auto",
        "digest": "", "precision": "float32",
    }  # fmt: skip
    save_file(net.state_dict(), tmp_path / "alexnet-owt-7be5be79.safetensors")
    (tmp_path / "alexnet-owt-7be5be79.pth").unlink()
    assert by_name(build_columns(Weights(folder=str(tmp_path))))["AlexNet-5"].about["digest"] == first.about["digest"]


def test_lpips_is_its_formula(torchvision: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, widths = AlexNet(), (8, 24, 48, 32, 32)
    torch.save(net.state_dict(), tmp_path / "alexnet-owt-7be5be79.pth")
    weights = [torch.rand(1, width, 1, 1) for width in widths]
    torch.save({f"lin{k}.model.1.weight": w for k, w in enumerate(weights)}, tmp_path / "alex.pth")
    found = build_columns(Weights(folder=str(tmp_path)))
    a, b = pictures(), pictures().flip(0) ** 2
    table = squared_table(features(found, a)["LPIPS"], features(found, b)["LPIPS"])
    shift, scale = (torch.tensor(x)[:, None, None] for x in ((-0.03, -0.088, -0.188), (0.458, 0.448, 0.45)))
    maps = []
    for images in (a, b):
        x, of = (2 * resized(images, 256) - 1 - shift) / scale, []
        for k, layer in enumerate(net.features):
            x = layer(x)
            if k in (1, 4, 7, 9, 11):
                of.append(x.detach() / x.detach().square().sum(1, keepdim=True).sqrt().clamp_min(1e-10))
        maps.append(of)
    distance = sum((w * (y - y0) ** 2).sum(1).mean((1, 2)) for w, y, y0 in zip(weights, maps[0], maps[1], strict=True))
    assert np.diagonal(table) == pytest.approx(torch.as_tensor(distance).numpy(), rel=1e-4)
    assert np.allclose(
        np.diagonal(squared_table(features(found, a)["LPIPS"], features(found, a)["LPIPS"])), 0, atol=1e-6
    )
    torch.save({f"lin{k}.model.1.weight": -w for k, w in enumerate(weights)}, tmp_path / "alex.pth")
    assert "does not hold LPIPS" in by_name(build_columns(Weights(folder=str(tmp_path))))["LPIPS"].why


def test_swav_lacks_its_last_layer_and_nothing_else(torchvision: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ResNet()
    state = {f"module.{key}": value for key, value in net.state_dict().items() if not key.startswith("fc.")}
    path = tmp_path / "swav_800ep_pretrain.pth.tar"
    torch.save(state | {"module.prototypes.weight": torch.zeros(3)}, path)
    column = by_name(build_columns(Weights(folder=str(tmp_path))))["SwAV"]
    x = (resized(pictures(), 224) - MEAN) / STD
    assert column.use == "correlation_distance"
    assert np.allclose(features([column], pictures())["SwAV"], net.conv1(x).mean((2, 3)).detach().numpy(), atol=1e-5)
    torch.save({key: value for key, value in state.items() if "bias" not in key}, path)
    why = by_name(build_columns(Weights(folder=str(tmp_path))))["SwAV"].why
    assert "conv1.bias has shape None, expected (6,)" in why


class Code:
    """What a pickle that runs something looks like."""

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return (Path.touch, (Path("ran"),))


def test_missing_columns_say_why(torchvision: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": Code()}, tmp_path / "alexnet-owt-7be5be79.pth")
    found = by_name(build_columns(Weights(folder=str(tmp_path))))
    assert list(found) == list(PUBLISHED)
    assert all(isinstance(column, Missing) and "\n" not in column.why for column in found.values())
    assert "not a readable file of weights" in found["AlexNet-2"].why
    assert not (tmp_path / "ran").exists()
    assert "swav_800ep_pretrain.pth.tar: no such file" in found["SwAV"].why
    assert "no weights named for CLIP ViT-L/14" in found["CLIP"].why
    (tmp_path / "efficientnet_b1-c27df63c.pth").touch()
    found = by_name(build_columns(Weights(folder=str(tmp_path))))
    assert "torchvision cannot be used" in found["EffNet"].why  # this one has no such network
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = by_name(build_columns(Weights(folder=str(tmp_path))))
    assert "alexnet needs torchvision: pip install 'synapse-diffusion[perceptual]'" in found["AlexNet-2"].why
    assert "DreamSim needs the package dreamsim" in found["DreamSim"].why
    assert features(list(found.values()), pictures()) == {}


def test_other_models_of_transformers_have_their_own_names(tmp_path: Path) -> None:
    tr: Any = pytest.importorskip("transformers")
    tr.logging.set_verbosity_error()
    tr.logging.disable_progress_bar()
    sizes = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 8,
    }  # fmt: skip
    square = {"height": 32, "width": 32}
    tr.CLIPModel(tr.CLIPConfig(vision_config=sizes, projection_dim=8)).save_pretrained(tmp_path / "clip")
    tr.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square).save_pretrained(tmp_path / "clip")
    where = str(tmp_path / "clip")
    found = by_name(build_columns(Weights(clip=where, others={"small CLIP": where, "DINOv2": str(tmp_path / "no")})))
    assert "2 blocks, 8 numbers, 32 x 32 pixels are not CLIP ViT-L/14's" in found["CLIP"].why
    assert features([found["small CLIP"]], pictures())["small CLIP"].shape == (4, 8)
    assert found["small CLIP"].layer == "projection"
    assert isinstance(found["DINOv2"], Missing)
    with pytest.raises(ValueError, match="another column"):
        build_columns(Weights(others={"CLIP": where}))


def test_tiny_darknet_stands_in_under_its_own_name(real: Path) -> None:
    weights = real / "weights/tiny_darknet_imagenet.safetensors"
    paths = sorted((real / "photos").rglob("*.jpg"))[::50]
    if not weights.is_file() or not paths:
        pytest.skip("no weights or photos there")
    from PIL import Image

    from synapse_diffusion.store.pictures import load_picture

    shown = torch.stack([
        torch.from_numpy(np.array(load_picture(path).resize((128, 128), Image.Resampling.BICUBIC))) for path in paths
    ]).permute(0, 3, 1, 2) / 255  # fmt: skip
    columns = [c for c in build_columns(Weights(darknet=str(weights))) if isinstance(c, Column)]
    names = ["TinyDarknet-early", "TinyDarknet-middle", "TinyDarknet-late", "TinyDarknet classes"]
    assert [c.name for c in columns] == names
    assert [c.use for c in columns] == ["two_way"] * 3 + ["n_way"]
    true = features(columns, shown)
    mirrored = features(columns, torch.stack([shown.flip(3), shown], 1))
    assert mirrored["TinyDarknet-late"].shape == (len(shown), 2, true["TinyDarknet-late"].shape[1])
    assert np.allclose(mirrored["TinyDarknet-late"][:, 1], true["TinyDarknet-late"], atol=1e-4)
    grey = features(columns, torch.full_like(shown, 0.5))
    for name in names[:3]:
        assert np.diagonal(two_way_table(mirrored[name][:, 0], true[name])).mean() > 0.8
        assert np.diagonal(two_way_table(grey[name], true[name])).mean() == pytest.approx(0.5)
    classes = classes_of(true[names[3]])
    assert np.diagonal(n_way_table(mirrored[names[3]][:, 0], classes, 50)).mean() > 0.8
    assert np.diagonal(n_way_table(true[names[3]], classes, 50)).mean() == 1.0
