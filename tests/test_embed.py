"""Images -> embedding table: encoders against transformers' own numbers, resuming, and what a user can do wrong."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch.nn import functional

from conftest import quiet
from synapse_diffusion.config import EmbedSettings, Recipe, parse_recipe
from synapse_diffusion.embed import embed
from synapse_diffusion.encoders import Encoder, build_encoder
from synapse_diffusion.encoders.pixels import blurred
from synapse_diffusion.errors import DataError, MissingError, SettingsError, StoreError, SynapseError
from synapse_diffusion.store.embeddings import EmbeddingTable, open_embeddings, true_rows, write_embeddings
from synapse_diffusion.store.pictures import load_picture

stage = importlib.import_module("synapse_diffusion.embed")  # the package has a function of this name
VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50,
}  # fmt: skip
SQUARE = {"height": 32, "width": 32}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with random weights, as `save_pretrained` writes the real ones."""
    tr: Any = pytest.importorskip("transformers")
    tr.logging.set_verbosity_error()
    tr.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    made = {
        "clip": (
            tr.CLIPModel(tr.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=16)),
            tr.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE),
        ),
        "siglip": (
            tr.SiglipModel(tr.SiglipConfig(vision_config=VISION, text_config=TEXT)),
            tr.SiglipImageProcessor(size=SQUARE),
        ),
        "dinov2": (
            tr.Dinov2Model(tr.Dinov2Config(**VISION)),
            tr.BitImageProcessor(size={"shortest_edge": 36}, crop_size=SQUARE),
        ),
        "vit": (tr.ViTModel(tr.ViTConfig(**VISION)), tr.ViTImageProcessor(size=SQUARE)),
        "classifier": (tr.ViTForImageClassification(tr.ViTConfig(**VISION)), tr.ViTImageProcessor(size=SQUARE)),
    }
    for name, (model, processor) in made.items():
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # these are small sums: two threads wait for each other
    yield
    torch.set_num_threads(before)


def picture(seed: int = 0, size: tuple[int, int] = (131, 97)) -> Image.Image:
    """Coloured blobs, (W, H)."""
    noise = np.random.default_rng(seed).standard_normal((size[1], size[0], 3))
    smooth = ndimage.gaussian_filter(noise, (3, 3, 0))
    return Image.fromarray((127 + 120 * smooth / np.abs(smooth).max()).astype(np.uint8))


def as_images(encoder: Encoder, *pictures: Image.Image) -> torch.Tensor:
    return torch.stack([encoder.prepare(p) for p in pictures]) / 255.0


def hub(folder: Path, **settings: Any) -> Encoder:
    return build_encoder(EmbedSettings(encoder="transformers", weights=str(folder), **settings))


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2", "vit"])
def test_layers_are_those_of_transformers(models: Path, name: str) -> None:
    import transformers as tr

    model: Any = tr.AutoModel.from_pretrained(models / name)
    model.train(False)
    processor = tr.AutoImageProcessor.from_pretrained(models / name)
    pictures = [picture(1), picture(2, (60, 91))]
    with torch.no_grad():
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        vision = model.vision_model if name in ("clip", "siglip") else model
        theirs = vision(pixel_values=pixels, output_hidden_states=True)
    own = 0 if name == "siglip" else 1  # class tokens
    hidden = {f"block_{k}": theirs.hidden_states[k] for k in range(4)} | {"last": theirs.last_hidden_state}
    expected = {layer: tokens[:, 0] if own else tokens.mean(1) for layer, tokens in hidden.items()}
    expected |= {"pooled": theirs.pooler_output}
    if name == "clip":
        expected |= {"projection": model.visual_projection(theirs.pooler_output).detach()}
    encoder = hub(models / name, layers=tuple(expected))
    found = encoder.encode(as_images(encoder, *pictures))
    assert encoder.size == (32, 32)
    assert tuple(found) == encoder.layers == tuple(expected)
    for layer, vectors in expected.items():
        torch.testing.assert_close(found[layer], vectors, atol=1e-5, rtol=0)
    patches = hidden["block_2"][:, own:]
    for token, vectors in {"mean": patches.mean(1), "max": patches.amax(1)}.items():
        encoder = hub(models / name, layers=("block_2",), token=token)
        found = encoder.encode(as_images(encoder, *pictures))
        torch.testing.assert_close(found["block_2"], vectors, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2", "vit"])
@pytest.mark.parametrize("size", [(131, 97), (33, 200), (20, 17)])
def test_preprocessing_is_that_of_the_models_processor(models: Path, name: str, size: tuple[int, int]) -> None:
    """Pillow's own filters on 8 bits in both: equal but for rounding of the normalisation (1e-6)."""
    import transformers as tr

    shown = picture(3, size)
    theirs = tr.AutoImageProcessor.from_pretrained(models / name)(images=shown, return_tensors="pt")["pixel_values"]
    from synapse_diffusion.encoders.hub import _pixels

    pixels = _pixels(tr.AutoImageProcessor.from_pretrained(models / name), name)
    ours = pixels.normalised(pixels.preparation.picture(shown)[None] / 255.0)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    floats = torch.from_numpy(np.array(shown)).permute(2, 0, 1)[None] / 255.0
    assert (pixels.preparation.images(floats) - pixels.preparation.picture(shown)[None] / 255.0).abs().mean() < 0.01


def test_layers_are_named_as_one_likes_and_checked(models: Path) -> None:
    assert hub(models / "clip").layers == ("projection",)
    assert hub(models / "vit").layers == ("last",)
    assert hub(models / "vit", layers=("-1", "-2", "block_2"), blur=(2.0,)).layers == (
        "last", "block_2", "last@blur2", "block_2@blur2",
    )  # fmt: skip
    with pytest.raises(SettingsError, match=r"vit has no 'block_9'; it has block_0 .. block_3, last, pooled"):
        hub(models / "vit", layers=("block_9",))
    with pytest.raises(SettingsError, match="classifier has no 'pooled'"):  # its weights hold no pooler
        hub(models / "classifier", layers=("pooled",))
    with pytest.raises(SettingsError, match="no class token"):
        hub(models / "siglip", token="cls")
    assert hub(models / "vit", token="grid", layers=("block_1",)).encode(torch.rand(1, 3, 32, 32))["block_1"].shape == (
        1, 512,
    )  # fmt: skip
    low, high = hub(models / "vit", precision="bfloat16"), hub(models / "vit")
    images = torch.rand(2, 3, 32, 32)
    assert 0 < (low.encode(images)["last"] - high.encode(images)["last"]).abs().max() < 0.1
    assert low.digest == high.digest != hub(models / "dinov2").digest


def test_a_name_is_found_in_the_cache_without_network(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--some--vit"
    (cached / "snapshots").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40)).symlink_to(models / "vit")
    named = build_encoder(EmbedSettings(encoder="transformers", weights="some/vit"))
    assert (named.name, named.digest) == ("vit", hub(models / "vit").digest)


def test_what_cannot_be_loaded_is_one_line(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    def fault(weights: Path | str) -> SynapseError:
        with pytest.raises(SynapseError) as caught:
            hub(Path(weights)) if isinstance(weights, Path) else build_encoder(
                EmbedSettings(encoder="transformers", weights=weights)
            )
        assert len(str(caught.value).splitlines()) == 1
        return caught.value

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    error = fault("nobody/no-such-model")
    assert error.exit_code == 3
    assert "'nobody/no-such-model': no such folder, and not to be had" in str(error)
    assert "no such folder, and not a name" in str(fault(tmp_path / "nowhere"))
    copy = tmp_path / "copy"
    shutil.copytree(models / "vit", copy)
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:5000])
    assert f"{copy}: cannot be loaded" in str(fault(copy))
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"a pickle")
    assert "pickled ones are never read" in str(fault(copy))
    (copy / "model.safetensors").write_bytes(weights)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    assert "its weights lack" in str(fault(copy))
    (copy / "preprocessor_config.json").unlink()
    assert "no preprocessor_config.json" in str(fault(copy))
    (copy / "config.json").unlink()
    assert isinstance(fault(copy), MissingError)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'synapse-diffusion[encoders]'" in str(fault(models / "vit"))


def tiny_darknet(path: Path) -> Path:
    """Random weights in the real plan, with few channels."""
    generator = torch.Generator().manual_seed(0)
    kernels = [3, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 1]
    state, before = {"conv15.bias": torch.zeros(10)}, 3
    for k, kernel in enumerate(kernels):
        after = 10 if k == 15 else 4 + k % 3
        state[f"conv{k}.weight"] = torch.randn(after, before, kernel, kernel, generator=generator)
        if k < 15:
            state |= {f"bn{k}.{n}": torch.rand(after, generator=generator) + 0.5 for n in ("weight", "running_var")}
            state |= {f"bn{k}.{n}": torch.randn(after, generator=generator) for n in ("bias", "running_mean")}
        before = after
    save_file(state, path)
    return path


def test_darknet_layers_and_faults(tmp_path: Path) -> None:
    path = tiny_darknet(tmp_path / "tiny.safetensors")
    settings = EmbedSettings(encoder="darknet", weights=str(path), layers=("conv5", "logits"))
    encoder = build_encoder(settings)
    found = encoder.encode(as_images(encoder, picture()))
    assert {layer: tuple(v.shape) for layer, v in found.items()} == {"conv5": (1, 6), "logits": (1, 10)}
    grid = build_encoder(settings.model_copy(update={"token": "grid"})).encode(as_images(encoder, picture()))
    assert grid["conv5"].shape == (1, 96)
    torch.testing.assert_close(grid["conv5"].reshape(1, 6, 16).mean(2), found["conv5"])
    for name, content in (("pickle.pt", b"\x80\x02}"), ("cut.safetensors", path.read_bytes()[:3000])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="not a readable safetensors file"):
            build_encoder(settings.model_copy(update={"weights": str(tmp_path / name)}))
    with pytest.raises(MissingError, match=r"nowhere: no such file; set embed\.weights"):
        build_encoder(settings.model_copy(update={"weights": "nowhere"}))
    save_file({"conv0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"not a Tiny Darknet: bn0\.weight is missing"):
        build_encoder(settings.model_copy(update={"weights": str(tmp_path / "other.safetensors")}))


def test_darknet_is_its_layers_one_after_the_other(tmp_path: Path) -> None:
    """Convolution, normalisation by running statistics, leaky ReLU, pooling: of more pictures than go at once."""
    path = tiny_darknet(tmp_path / "tiny.safetensors")
    settings = EmbedSettings(encoder="darknet", weights=str(path), layers=("conv0", "conv7", "conv15", "logits"))
    state, x_BDHW = load_file(path), torch.rand(11, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    found = build_encoder(settings).encode(x_BDHW)
    for k in range(16):
        weight = state[f"conv{k}.weight"]
        x_BDHW = functional.conv2d(x_BDHW, weight, state.get(f"conv{k}.bias"), padding=weight.shape[2] // 2)
        if k < 15:
            mean, variance, scale, bias = (
                state[f"bn{k}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")
            )
            x_BDHW = functional.batch_norm(x_BDHW, mean, variance, scale, bias, eps=1e-3)
            x_BDHW = functional.leaky_relu(x_BDHW, 0.1)
        if f"conv{k}" in found:
            torch.testing.assert_close(found[f"conv{k}"], x_BDHW.mean((2, 3)), rtol=1e-4, atol=1e-4)
        if k in (0, 1, 5, 9):
            x_BDHW = functional.max_pool2d(x_BDHW, 2, 2, ceil_mode=True)
    torch.testing.assert_close(found["logits"], found["conv15"])


def test_the_real_darknet_names_real_photos(real: Path) -> None:
    """Of photos whose THINGS concept is an ImageNet class by name, 71 of 95 are named right (published: 65 %)."""
    weights = real / "weights/tiny_darknet_imagenet.safetensors"
    names = [line.lower() for line in (real / "weights/tiny_darknet_labels.txt").read_text().splitlines()]
    of_file = {path: re.sub(r"_\d+p$", "", path.stem).replace("_", " ") for path in (real / "photos").glob("*.jpg")}
    photos = [path for path in sorted(of_file) if of_file[path] in names][::2]
    encoder = build_encoder(EmbedSettings(encoder="darknet", weights=str(weights), layers=("logits",)))
    logits = encoder.encode(as_images(encoder, *map(load_picture, photos)))["logits"]
    right = sum(names[k] == of_file[path] for k, path in zip(logits.argmax(1).tolist(), photos, strict=True))
    assert len(photos) > 40
    assert right / len(photos) > 0.65


def test_gist_sees_place_scale_orientation_and_colour() -> None:
    encoder = build_encoder(EmbedSettings())
    column = torch.arange(128) / 128

    def grating(cycles: float, turned: bool = False) -> torch.Tensor:
        wave = 0.5 + 0.4 * torch.sin(2 * torch.pi * cycles * column).expand(3, 128, 128)
        return (wave.transpose(1, 2) if turned else wave)[None]

    energy = encoder.encode(torch.cat([grating(38), grating(6), grating(38, turned=True)]))["gist"]
    assert energy.shape == (3, 512)
    by_filter = energy.reshape(3, 4, 8, 16).mean(3)
    assert [divmod(int(k), 8) for k in by_filter.flatten(1).argmax(1)] == [(0, 0), (3, 0), (0, 4)]
    half = grating(38).clone()
    half[..., :64] = 0.5
    left, right = encoder.encode(half)["gist"].reshape(32, 4, 4)[0].T.reshape(2, 8).mean(1)
    assert right > 3 * left
    shown = as_images(encoder, picture(1), picture(2))
    first, again = encoder.encode(shown), encoder.encode(shown.clone())
    assert all(torch.equal(first[layer], again[layer]) for layer in first)
    moved = encoder.encode(shown.roll(3, dims=3))["gist"]
    near, far = (moved - first["gist"]).norm(dim=1), (first["gist"][0] - first["gist"][1]).norm()
    assert near.max() < 0.5 * far
    red = torch.zeros(1, 3, 128, 128)
    red[:, 0] = 1
    assert torch.allclose(encoder.encode(red)["colour"][0, 16:32], torch.ones(16))
    assert encoder.encode(red)["both"].shape == (1, 560)


def test_blur_is_a_gaussian_and_has_layers_of_its_own() -> None:
    images = torch.rand(1, 3, 64, 48)
    expected = ndimage.gaussian_filter(images[0].numpy(), (0, 3, 3), truncate=8)
    inside = (slice(None), slice(14, -14), slice(14, -14))  # at the border scipy mirrors
    np.testing.assert_allclose(blurred(images, 3.0)[0].numpy()[inside], expected[inside], atol=1e-4)
    assert torch.allclose(blurred(torch.ones(1, 3, 8, 9), 40.0), torch.ones(1))
    encoder = build_encoder(EmbedSettings(layers=("gist",), blur=(2.0, 8.5)))
    assert encoder.layers == ("gist", "gist@blur2", "gist@blur8.5")
    shown = as_images(encoder, picture())
    found = encoder.encode(shown)
    plain = build_encoder(EmbedSettings(layers=("gist",))).encode(blurred(shown, 2.0))
    assert torch.equal(found["gist@blur2"], plain["gist"])
    assert not torch.equal(found["gist"], found["gist@blur2"])


def pictures_in(root: Path, names: list[str]) -> Path:
    for k, name in enumerate(names):
        path = root / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(k, (40, 30)).save(path)
    return root / "pictures"


def recipe_in(root: Path, *overrides: str) -> Recipe:
    paths = {"images": str(root / "pictures"), "embeddings": str(root / "embeddings")}
    tree = {"paths": paths, "execution": {"device": "cpu", "threads": 1}, "embed": {"batch": 2, "layers": ["gist"]}}
    return parse_recipe(tree, overrides)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that are computed from now on."""
    sizes: list[int] = []
    encode = Encoder.encode

    def counted(self: Encoder, images_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
        if images_B3HW.any():  # not the grey picture of build_encoder
            sizes.append(len(images_B3HW))
        return encode(self, images_B3HW)

    monkeypatch.setattr(Encoder, "encode", counted)
    return sizes


NAMES = [f"{concept}/{concept}_{k:02d}s.png" for concept in ("cat", "dog") for k in range(5)]


def test_a_killed_call_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "killed"):
        pictures_in(tmp_path / name, NAMES)
    monkeypatch.setattr(stage, "PART", 4)
    whole, _ = embed(recipe_in(tmp_path / "whole"), quiet, quiet)
    code = (
        "import os, signal, sys; from test_embed import recipe_in, stage\n"
        "from pathlib import Path; from synapse_diffusion.store.embeddings import VectorCache\n"
        "stage.PART, write, parts = 4, VectorCache.write_part, []\n"
        "def kill(self, *rest):\n"
        "    write(self, *rest); parts.append(0)\n"
        "    if len(parts) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "VectorCache.write_part = kill\n"
        "stage.embed(recipe_in(Path(sys.argv[1])), lambda *_: None, lambda *_: None)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "killed")], check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / "killed/embeddings" / whole.name
    assert not folder.exists()
    sizes = count_encoded(monkeypatch)
    assert embed(recipe_in(tmp_path / "killed"), quiet, quiet)[0] == folder
    assert sizes == [2]
    assert contents(folder) == contents(whole)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    embed(recipe_in(tmp_path / "killed"), quiet, quiet)
    assert sizes == [2]
    folder.with_name(f".{folder.name}.unfinished").mkdir()  # killed between removing the old table and renaming the new
    folder.rename(folder.with_name(f".{folder.name}.unfinished") / "table")
    embed(recipe_in(tmp_path / "killed"), quiet, quiet)
    assert sizes == [2]
    assert contents(folder) == contents(whole)


def test_only_new_and_changed_images_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures_in(tmp_path, NAMES)
    folder, table = embed(recipe_in(tmp_path), quiet, quiet)
    assert list(table.rows["image_id"]) == sorted(Path(name).stem for name in NAMES)
    assert set(table.rows["concept"]) == {"cat", "dog"}
    assert set(table.rows["source"]) == {"true"}
    sizes = count_encoded(monkeypatch)
    picture(50).save(root / "dog/dog_01s.png")
    picture(51).save(root / "bird_07b.png")
    (root / "cat/cat_00s.png").unlink()
    (root / "cat/cat_01s.png").rename(root / "dog/cat_01s.png")
    (root / "cat/.cat_01s.png").write_bytes(b"leftover of another system")
    again, grown = embed(recipe_in(tmp_path), quiet, quiet)
    assert (again, sum(sizes)) == (folder, 2)
    concept = dict(zip(grown.rows["image_id"], grown.rows["concept"], strict=True))
    assert (concept["bird_07b"], concept["cat_01s"], "cat_00s" in concept) == ("bird", "dog", False)
    other, _ = embed(recipe_in(tmp_path, "data.name=meg", "embed.batch=3"), quiet, quiet)
    assert other != folder
    assert sum(sizes) == 2
    assert embed(recipe_in(tmp_path, "embed.blur=[3]"), quiet, quiet)[0] not in (folder, other)
    assert sum(sizes) == 2 + 10
    fresh = build_encoder(EmbedSettings(layers=("gist",)))
    for image in ("bird_07b", "dog_01s", "cat_04s"):
        path = next(root.rglob(f"{image}.png"))
        expected = fresh.encode(as_images(fresh, load_picture(path)))["gist"]
        np.testing.assert_allclose(grown.select([image]).vectors["gist"], expected.numpy(), atol=1e-5)


def test_pictures_that_are_none_or_share_a_name_are_one_line(tmp_path: Path) -> None:
    root = pictures_in(tmp_path, NAMES[:3])
    (root / "cat/broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be read as a picture \(broken\.jpg is no picture\)"):
        embed(recipe_in(tmp_path), quiet, quiet)
    picture().save(root / "cat/broken.jpg")
    (root / "cat/broken.jpg").write_bytes((root / "cat/broken.jpg").read_bytes()[:500])
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be read as a picture"):
        embed(recipe_in(tmp_path), quiet, quiet)
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(root / "cat/broken.jpg", format="png")
    with pytest.raises(DataError, match="8 bits a colour"):
        embed(recipe_in(tmp_path), quiet, quiet)
    (root / "cat/broken.jpg").unlink()
    (root / "cat/gone.jpg").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read: No such file"):
        embed(recipe_in(tmp_path), quiet, quiet)
    (root / "cat/gone.jpg").unlink()
    pictures_in(tmp_path, ["other/cat_01s.jpg"])
    with pytest.raises(DataError, match=r"cat/cat_01s\.png and other/cat_01s\.jpg would both be image cat_01s"):
        embed(recipe_in(tmp_path), quiet, quiet)
    with pytest.raises(DataError, match="no pictures"):
        embed(recipe_in(tmp_path, f"paths.images={tmp_path / 'embeddings'}"), quiet, quiet)


def test_a_table_is_checked_at_birth_and_on_disk(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    table = EmbeddingTable(true_rows(["a", "b", "c"], ["x", "x", "y"]), {"last": vectors, "l2": vectors[:, :2]}, {})
    folder = tmp_path / "table"
    write_embeddings(table, folder)
    read = open_embeddings(folder)
    pd.testing.assert_frame_equal(read.rows, table.rows, check_dtype=False)
    assert np.array_equal(read.vectors["last"], vectors)
    assert list(open_embeddings(folder, ["l2"]).vectors) == ["l2"]
    assert np.array_equal(read.select(["c", "a"]).vectors["l2"], vectors[[2, 0], :2])
    with pytest.raises(StoreError, match=r"1 of 2 images have no embedding, e\.g\. z"):
        read.select(["a", "z"])
    with pytest.raises(StoreError, match="no layer 'block_3'; it has"):
        open_embeddings(folder, ["block_3"])
    with pytest.raises(ValueError, match="for 2 rows"):
        EmbeddingTable(table.rows[:2], table.vectors, {})
    with pytest.raises(ValueError, match="'a' occurs twice"):
        EmbeddingTable(table.rows.assign(row_id="a"), table.vectors, {})
    with pytest.raises(ValueError, match="row b is not finite"):
        EmbeddingTable(table.rows, {"last": np.where(vectors == vectors[1, 2], np.float32("nan"), vectors)}, {})
    digest = read.digest
    (folder / "rows.tsv").write_text((folder / "rows.tsv").read_text().replace("\tx\t", "\ty\t"))
    with pytest.raises(StoreError, match=r"rows\.tsv: edited or damaged"):
        open_embeddings(folder)
    write_embeddings(table, folder)
    assert open_embeddings(folder).digest == digest
    (folder / "vectors.safetensors").unlink()
    with pytest.raises(StoreError, match=r"vectors\.safetensors: missing"):
        open_embeddings(folder)
    with pytest.raises(StoreError, match=r"manifest\.json: missing or damaged"):
        open_embeddings(tmp_path)


def test_settings_that_contradict_each_other_are_refused() -> None:
    for override, message in (
        ("embed.encoder=darknet", "needs weights"),
        ("embed.weights=x", "has no weights"),
        ("embed.token=mean", "knows no token"),
        ("embed.layers=gist,gist", "names one twice"),
        ("embed.blur=[-1]", "greater than 0"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_recipe({}, [override])
    assert parse_recipe({}, ["embed.layers=-1", "embed.encoder=transformers", "embed.weights=a/b"]).embed.layers == (
        "-1",
    )
