"""Images <-> latents, in which generators work: pixels, a tiny autoencoder, or one of diffusers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors.torch import load_file

from synapse_diffusion.encoders import taesd
from synapse_diffusion.encoders.loading import faults, quietly
from synapse_diffusion.encoders.pixels import state_digest
from synapse_diffusion.errors import DataError, MissingError, SettingsError

Kind = Literal["none", "taesd", "diffusers"]
Precision = Literal["float32", "bfloat16", "float16"]
CLASSES: Final = ("AutoencoderKL", "AutoencoderTiny")
HUB_NAME: Final = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)((?:/[\w.-]+)*)")
Step = Callable[[torch.Tensor], torch.Tensor]
AT_ONCE: Final = 8  # pictures through a network: more leave a CPU's cache, and at 512 x 512 a GPU's memory


@dataclass(frozen=True)
class Autoencoder:
    """Images (B, 3, H, W) in 0..1 <-> latents (B, channels, H / factor, W / factor), float32, without gradients.

    Latents vary about as much as unit noise, with mean about 0. Encoding is deterministic: of a distribution its mode.
    """

    name: str
    kind: Kind
    channels: int
    factor: int
    """Pixels a side of one latent."""
    precision: Precision
    digest: str
    """Of the weights in float32, and of what is done to latents."""
    device: torch.device
    forward: Step
    backward: Step

    @torch.no_grad()
    def encode(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        """Images in 0..1 -> latents. Raises `SettingsError` where the sides are no multiples of `factor`."""
        self.shape(*images_B3HW.shape[2:])
        return self._through(self.forward, images_B3HW)

    @torch.no_grad()
    def decode(self, latents_BCHW: torch.Tensor) -> torch.Tensor:
        """Latents -> images, cut off to 0..1."""
        if latents_BCHW.shape[1] != self.channels:
            raise ValueError(f"{self.name} has {self.channels} channels, got latents {tuple(latents_BCHW.shape)}")
        return self._through(self.backward, latents_BCHW).clamp(0, 1)

    def _through(self, step: Step, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = x_BCHW.to(self.device, _type(self.precision))
        if self.kind == "none":
            return step(x_BCHW).float()
        if self.device.type == "cpu":
            x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        return torch.cat([step(part).float() for part in torch.split(x_BCHW, AT_ONCE)])

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, h, w) of the latents of pictures of this size. Raises `SettingsError` where they do not fit."""
        if height % self.factor or width % self.factor:
            raise SettingsError(
                f"pictures of {height} x {width} do not fit {self.name}; take multiples of {self.factor} pixels"
            )
        return self.channels, height // self.factor, width // self.factor

    @property
    def about(self) -> dict[str, Any]:
        """What results name: `name kind digest precision channels factor`."""
        return {key: getattr(self, key) for key in ("name", "kind", "digest", "precision", "channels", "factor")}


def build_autoencoder(
    kind: Kind, weights: str = "", device: torch.device | str = "cpu", precision: Precision = "float32"
) -> Autoencoder:
    """The autoencoder of this kind.

    `none`: pixels, as -1..1. `taesd`: `weights` is `FOLDER/taef2`, say, for `FOLDER/taef2_encoder.safetensors` and
    `..._decoder.safetensors`. `diffusers`: AutoencoderKL or AutoencoderTiny (the VAEs of Stable Diffusion, SDXL, FLUX)
    as a folder of `save_pretrained` or a name on huggingface.co (`OWNER/NAME`, `OWNER/NAME/vae`); a pipeline's folder
    is asked for its `vae`. Weights in safetensors only.

    Raises `MissingError` (package, files, network), `DataError` (damaged, or another network), `SettingsError`.
    """
    device = torch.device(device)
    if kind == "none":
        digest = state_digest({}, "pixels 1")
        return Autoencoder("pixels", kind, 3, 1, precision, digest, device, lambda x: 2 * x - 1, lambda z: (z + 1) / 2)
    return (_tiny if kind == "taesd" else _diffusers)(weights, device, precision)


def _tiny(weights: str, device: torch.device, precision: Precision) -> Autoencoder:
    name = re.sub(r"_(en|de)coder\.safetensors$", "", Path(weights).name)
    states = [_read(Path(weights).with_name(f"{name}_{part}.safetensors")) for part in ("encoder", "decoder")]
    try:
        encoder, decoder = taesd.fitted(*states)
    except ValueError as error:
        raise DataError(f"{weights}: not an autoencoder of the TAESD family: {error}") from None
    digest = state_digest(_named(encoder.state_dict(), decoder.state_dict()), "taesd 1")
    for network in (encoder, decoder):
        network.eval().requires_grad_(False).to(device, _type(precision))
    channels = int(states[1]["1.weight"].shape[1])
    return Autoencoder(name, "taesd", channels, taesd.FACTOR, precision, digest, device, encoder, decoder)


def _diffusers(weights: str, device: torch.device, precision: Precision) -> Autoencoder:
    try:
        import diffusers  # takes seconds
    except ImportError:
        raise MissingError(
            "an autoencoder of diffusers needs a package: pip install 'synapse-diffusion[generators]'"
        ) from None
    place, where = _place(weights)
    with faults("generator.weights", weights, "an autoencoder"), quietly(diffusers):
        config = diffusers.AutoencoderKL.load_config(place, **where)
        kind = config.get("_class_name")
        if kind not in CLASSES:
            raise DataError(f"{weights}: holds {kind or 'no class name'}, not {' or '.join(CLASSES)}; name its VAE")
        model, info = getattr(diffusers, kind).from_pretrained(
            place, use_safetensors=True, output_loading_info=True, torch_dtype=torch.float32, **where
        )
    if new := sorted(info["missing_keys"]) + sorted(map(str, info.get("mismatched_keys") or ())):
        raise DataError(f"{weights}: its weights lack {new[0]} ({len(new)} in all); take a complete checkpoint")
    if precision == "float16" and model.config.get("force_upcast"):
        raise SettingsError(f"{weights}: overflows in float16 (its force_upcast says so); take bfloat16 or float32")
    return _wrapped(model.eval().requires_grad_(False), weights, device, precision)


def _wrapped(model: Any, weights: str, device: torch.device, precision: Precision) -> Autoencoder:
    """Latents as diffusers' pipelines scale them: (z - shift) scale; (z - mean) scale / std where those are given."""
    config = model.config
    kl = type(model).__name__ == "AutoencoderKL"
    shift, scale = float(config.get("shift_factor") or 0.0), float(config.get("scaling_factor") or 1.0)
    offset, spread = torch.tensor(shift), torch.tensor(1 / scale)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        offset, std = (torch.tensor(config[key]).reshape(-1, 1, 1) for key in ("latents_mean", "latents_std"))
        spread = std / scale
    digest = state_digest(model.state_dict(), type(model).__name__, offset.tolist(), spread.tolist())
    model = model.to(device, _type(precision))
    offset, spread = offset.to(device, _type(precision)), spread.to(device, _type(precision))

    def encode(images: torch.Tensor) -> torch.Tensor:
        out = model.encode(2 * images - 1)
        latents: torch.Tensor = out.latent_dist.mode() if kl else out.latents
        return (latents - offset) / spread

    def decode(latents: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = model.decode(latents * spread + offset).sample
        return (images + 1) / 2

    folder = Path(weights)
    parts = [part for part in (folder.resolve() if folder.is_dir() else folder).parts if part != "vae"]
    name = re.sub(r"[^\w.-]+", "-", parts[-1])
    channels, factor = _measured(encode, device, precision)
    return Autoencoder(name, "diffusers", channels, factor, precision, digest, device, encode, decode)


def _measured(encode: Step, device: torch.device, precision: Precision) -> tuple[int, int]:
    """Channels and pixels a side of one latent, by asking for one grey picture of 64 x 64."""
    side = 64
    with torch.no_grad():
        latents = encode(torch.full((1, 3, side, side), 0.5, device=device, dtype=_type(precision)))
    return latents.shape[1], side // latents.shape[2]


def _place(weights: str) -> tuple[str, dict[str, Any]]:
    """Folder or hub name, and what `from_pretrained` needs beside it. Raises `MissingError`, with what is not there."""
    folder = Path(weights)
    if not weights or not folder.is_dir():
        match = HUB_NAME.fullmatch(weights)
        if match is None:
            raise MissingError(f"{weights!r}: no such folder, and not a name on huggingface.co; fetch the autoencoder")
        return match[1], {"subfolder": match[2].strip("/") or None}
    if (folder / "model_index.json").is_file():
        folder = folder / "vae"
    if not (folder / "config.json").is_file():
        raise MissingError(f"{folder}: no config.json; name a folder made by an autoencoder's save_pretrained")
    if not any(folder.glob("*.safetensors")):
        raise MissingError(f"{folder}: no weights in safetensors (pickled ones are never read); convert or fetch them")
    return str(folder), {"local_files_only": True}


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise MissingError(f"{path}: no such file; a tiny autoencoder is NAME_encoder.safetensors and NAME_decoder...")
    try:
        return {key: tensor.float() for key, tensor in load_file(path).items()}
    except Exception as error:  # safetensors raises a class of its own for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable safetensors file ({reason}); fetch it again") from None


def _named(encoder: Mapping[str, torch.Tensor], decoder: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{part}.{k}": v for part, state in (("encoder", encoder), ("decoder", decoder)) for k, v in state.items()}


def _type(precision: Precision) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
