"""Images <-> latents: tiny ones and diffusers' against diffusers, real photos, and what a user can do wrong."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from synapse_diffusion.encoders.autoencoders import Autoencoder, Precision, build_autoencoder
from synapse_diffusion.encoders.taesd import decoder, encoder
from synapse_diffusion.errors import DataError, MissingError, SettingsError

SHIFT, SCALE = 0.1, 0.7


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with random weights, as `save_pretrained` writes the real ones."""
    diffusers: Any = pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("autoencoders")
    torch.manual_seed(0)
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8), "norm_num_groups": 2,
    }  # fmt: skip
    kl = diffusers.AutoencoderKL(
        latent_channels=4, scaling_factor=SCALE, shift_factor=SHIFT, force_upcast=False, **blocks
    )
    kl.save_pretrained(folder / "pipeline/vae")
    (folder / "pipeline/model_index.json").write_text("{}")
    diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4,
    ).save_pretrained(folder / "tiny")  # fmt: skip
    diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=2, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    ).save_pretrained(folder / "unet")  # fmt: skip
    return folder


def edited(models: Path, to: Path, **config: Any) -> Path:
    """A copy of the AutoencoderKL with another configuration."""
    shutil.copytree(models / "pipeline/vae", to)
    about = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(about | config))
    return to


def tiny_files(folder: Path, channels: int = 4, inner: int = 0, width: int = 8) -> str:
    """Files of the TAESD family with random weights."""
    torch.manual_seed(0)
    for part, make in (("encoder", encoder), ("decoder", decoder)):
        state = {key: tensor.half() for key, tensor in make(width, channels, inner).state_dict().items()}
        save_file(state, folder / f"taex_{part}.safetensors")
    return str(folder / "taex")


def images(n: int = 2, side: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_pixels_go_from_minus_one_to_one_and_back() -> None:
    pixels = build_autoencoder("none")
    shown = images()
    latents = pixels.encode(shown)
    assert torch.equal(latents, 2 * shown - 1)
    assert torch.allclose(pixels.decode(latents), shown)
    assert [float(value) for value in pixels.decode(latents * 3).aminmax()] == [0.0, 1.0]
    assert pixels.shape(30, 31) == (3, 30, 31)


@pytest.mark.parametrize("half", ["float32", "float16", "bfloat16"])
def test_taef2_gives_photos_back(real: Path, half: Precision) -> None:
    weights, photos = real / "weights/taef2", sorted((real / "photos").rglob("*.jpg"))[::128]
    if not weights.with_name("taef2_encoder.safetensors").is_file() or not photos:
        pytest.skip("no weights or photos there")
    taef2 = build_autoencoder("taesd", str(weights), precision=half)
    assert taef2.shape(256, 256) == (32, 32, 32)
    shown = torch.stack([
        torch.from_numpy(np.array(Image.open(path).convert("RGB").resize((256, 256), Image.Resampling.BICUBIC)))
        for path in (photos if half == "float32" else photos[:1])
    ]).permute(0, 3, 1, 2) / 255  # fmt: skip
    if half != "float32":
        shown = shown[..., 64:192, 64:192]
    latents = taef2.encode(shown)
    psnr = -10 * (taef2.decode(latents) - shown).square().mean((1, 2, 3)).log10()
    assert latents.dtype == torch.float32
    if half == "float32":
        assert psnr.mean() > 30.5  # 31.0 over 32 photos
        assert abs(float(latents.mean())) < 0.1
        assert 0.7 < float(latents.std()) < 1.3
    else:
        exact = build_autoencoder("taesd", str(weights))
        assert exact.digest == taef2.digest
        assert 0 < (exact.encode(shown) - latents).abs().mean() < 0.02
        assert psnr.mean() > -10 * (exact.decode(exact.encode(shown)) - shown).square().mean().log10() - 0.3


@pytest.mark.parametrize(("channels", "inner"), [(4, 0), (16, 0), (32, 16)])
def test_the_tiny_family_is_known_by_its_files(tmp_path: Path, channels: int, inner: int) -> None:
    weights = tiny_files(tmp_path, channels, inner)
    model = build_autoencoder("taesd", weights)
    shown = images()
    assert model.encode(shown).shape == (2, channels, 4, 4)
    assert model.decode(model.encode(shown)).shape == shown.shape
    assert build_autoencoder("taesd", f"{weights}_encoder.safetensors").about == model.about
    assert model.about["name"] == "taex"
    state = load_file(f"{weights}_decoder.safetensors")
    state["1.bias"][0] += 1
    save_file(state, f"{weights}_decoder.safetensors")
    assert build_autoencoder("taesd", weights).digest != model.digest


def test_the_tiny_plan_is_that_of_diffusers(tmp_path: Path) -> None:
    """AutoencoderTiny is TAESD with other names for the same weights."""
    diffusers: Any = pytest.importorskip("diffusers")
    theirs: Any = diffusers.AutoencoderTiny().eval()
    for part in ("encoder", "decoder"):
        state = getattr(theirs, part).layers.state_dict()
        shift = 0 if part == "encoder" else 1  # their clamp is no layer
        named = {f"{int(key.split('.')[0]) + shift}.{key.split('.', 1)[1]}": value for key, value in state.items()}
        save_file({key: value.contiguous() for key, value in named.items()}, tmp_path / f"taesd_{part}.safetensors")
    ours = build_autoencoder("taesd", str(tmp_path / "taesd"))
    shown = images(side=64)
    with torch.no_grad():
        latents = theirs.encode(2 * shown - 1).latents
        back = (theirs.decode(latents).sample + 1) / 2
    torch.testing.assert_close(ours.encode(shown), latents, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.decode(latents), back.clamp(0, 1), atol=1e-5, rtol=1e-4)


def test_scale_and_shift_are_those_of_the_pipelines(models: Path, tmp_path: Path) -> None:
    diffusers: Any = pytest.importorskip("diffusers")
    theirs: Any = diffusers.AutoencoderKL.from_pretrained(models / "pipeline/vae")
    shown = images()
    with torch.no_grad():
        raw = theirs.encode(2 * shown - 1).latent_dist.mode()
        back = (theirs.decode(raw).sample / 2 + 0.5).clamp(0, 1)
    ours = build_autoencoder("diffusers", str(models / "pipeline"))
    assert (ours.name, ours.shape(32, 48)) == ("pipeline", (4, 16, 24))
    torch.testing.assert_close(ours.encode(shown), (raw - SHIFT) * SCALE)
    torch.testing.assert_close(ours.decode((raw - SHIFT) * SCALE), back)
    mean, std = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]
    standard = build_autoencoder("diffusers", str(edited(models, tmp_path / "std", latents_mean=mean, latents_std=std)))
    expected = (raw - torch.tensor(mean)[:, None, None]) * SCALE / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(standard.encode(shown), expected)
    torch.testing.assert_close(standard.decode(expected), back)
    assert len({ours.digest, standard.digest, build_autoencoder("diffusers", str(models / "tiny")).digest}) == 3


def test_diffusers_tiny_autoencoder_and_half_precision(models: Path) -> None:
    diffusers: Any = pytest.importorskip("diffusers")
    shown = images()
    with torch.no_grad():
        latents = diffusers.AutoencoderTiny.from_pretrained(models / "tiny").encode(2 * shown - 1).latents
    ours = build_autoencoder("diffusers", str(models / "tiny"))
    torch.testing.assert_close(ours.encode(shown), latents)
    low = build_autoencoder("diffusers", str(models / "tiny"), precision="bfloat16")
    assert (low.digest, low.precision) == (ours.digest, "bfloat16")
    assert low.encode(shown).dtype == torch.float32
    assert 0 < (low.encode(shown) - latents).abs().max() < 0.1


def test_a_name_is_found_in_the_cache_without_network(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    for constants in ("huggingface_hub.constants", "diffusers.utils.constants"):
        for name in ("HF_HUB_CACHE", "HF_MODULES_CACHE"):
            monkeypatch.setattr(f"{constants}.{name}", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached = tmp_path / "models--some--diffusion"
    (cached / "snapshots").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40)).symlink_to(models / "pipeline")
    named = build_autoencoder("diffusers", "some/diffusion/vae")
    assert named.about == build_autoencoder("diffusers", str(models / "pipeline")).about | {"name": "diffusion"}


def test_what_a_user_can_do_wrong_is_one_sentence(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(error: type[Exception], match: str, kind: Any, weights: Path | str, **more: Any) -> None:
        with pytest.raises(error, match=match) as caught:
            build_autoencoder(kind, str(weights), **more)
        assert "\n" not in str(caught.value)

    fails(DataError, "holds UNet2DModel, not AutoencoderKL or AutoencoderTiny", "diffusers", models / "unet")
    fails(MissingError, "no such folder", "diffusers", tmp_path / "no where")
    fails(MissingError, "no such folder", "diffusers", "")
    (tmp_path / "empty").mkdir()
    fails(MissingError, r"no config\.json", "diffusers", tmp_path / "empty")
    pickled = edited(models, tmp_path / "pickled")
    weights = pickled / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), pickled / "diffusion_pytorch_model.bin")
    state = load_file(weights)
    weights.unlink()
    fails(MissingError, "no weights in safetensors .pickled ones are never read", "diffusers", pickled)
    del state["decoder.conv_out.bias"]
    save_file(state, weights)
    fails(DataError, r"lack decoder\.conv_out\.bias", "diffusers", pickled)
    weights.write_bytes(b"no tensors here")
    fails(DataError, "cannot be loaded as an autoencoder", "diffusers", pickled)
    upcast = edited(models, tmp_path / "upcast", force_upcast=True)
    fails(SettingsError, "overflows in float16", "diffusers", upcast, precision="float16")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fails(MissingError, "not to be had", "diffusers", "some/vae")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    fails(MissingError, r"pip install 'synapse-diffusion\[generators\]'", "diffusers", models / "tiny")
    fails(MissingError, r"taef9_encoder\.safetensors: no such file", "taesd", tmp_path / "taef9")
    tiny = Path(tiny_files(tmp_path))
    state = load_file(f"{tiny}_decoder.safetensors")
    save_file(state | {"19.bias": torch.zeros(4)}, f"{tiny}_decoder.safetensors")
    fails(DataError, r"decoder weight 19\.bias has shape \(4,\), expected \(3,\)", "taesd", tiny)
    save_file({"a": torch.zeros(1)}, f"{tiny}_encoder.safetensors")
    fails(DataError, r"encoder weight 0\.weight is missing", "taesd", tiny)
    Path(f"{tiny}_encoder.safetensors").write_bytes(b"x")
    fails(DataError, "not a readable safetensors file", "taesd", tiny)


def test_pictures_and_latents_must_fit(models: Path) -> None:
    model: Autoencoder = build_autoencoder("diffusers", str(models / "tiny"))
    with pytest.raises(SettingsError, match=r"31 x 32 do not fit tiny; take multiples of 2 pixels"):
        model.encode(torch.rand(1, 3, 31, 32))
    with pytest.raises(ValueError, match="4 channels"):
        model.decode(torch.rand(1, 3, 8, 8))
