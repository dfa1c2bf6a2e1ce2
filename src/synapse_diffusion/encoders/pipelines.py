"""Image vectors -> pictures by pretrained pipelines of diffusers.

Stable unCLIP (Rombach et al.; unCLIP: Ramesh et al. 2022), Stable Diffusion XL with an IP-Adapter (Podell et al. 2023;
Ye et al. 2023), Kandinsky 2.2's decoder (Razzhigaev et al. 2023). Each takes vectors as its image encoder gives them:
neither standardised nor of length one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch.nn.functional import interpolate

from synapse_diffusion.config import PretrainedSettings
from synapse_diffusion.encoders.autoencoders import Autoencoder
from synapse_diffusion.encoders.loading import faults, quietly
from synapse_diffusion.encoders.pipeline_files import CLASSES, Found, files_digest, libraries, part_files
from synapse_diffusion.errors import DataError, MissingError

OLD_NAMES: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
TYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pipeline:
    """A loaded pipeline."""

    settings: PretrainedSettings
    pipe: Any
    device: torch.device
    digest: str
    """Of its files: weights and configuration."""

    @property
    def vae(self) -> Any:
        """Images <-> latents."""
        return self.pipe.movq if self.settings.pipeline == "kandinsky" else self.pipe.vae

    @property
    def side(self) -> int:
        """Pixels a side of what is drawn: the size that the network was trained at."""
        return int(self.pipe.unet.config.sample_size) * self._factor

    @property
    def _factor(self) -> int:
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def paint(
        self, vectors_BD: Floats, unknown_D: Floats, draws: Sequence[torch.Generator], steps: int, guidance: float,
        first_B3HW: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Pictures (B, 3, H, W) in 0..1 of vectors in the encoder's own scale, each of its own random numbers.

        `unknown_D` is what the pipeline takes for no vector, for guidance (1: none); `first_B3HW` (0..1) are the
        pictures to begin at, for `strength` below 1. Raises `DataError` where half precision overflows.
        """
        vectors, unknown = (
            torch.from_numpy(x).to(self.device, TYPES[self.settings.precision]) for x in (vectors_BD, unknown_D)
        )
        arguments = self._condition(vectors, unknown.expand_as(vectors), guidance)
        if first_B3HW is not None:
            first = interpolate(first_B3HW, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
            arguments |= {"image": first, "strength": self.settings.strength}
        if first_B3HW is None or self.settings.pipeline == "kandinsky":
            arguments |= {"height": self.side, "width": self.side}
        with quietly(libraries()[0]):
            images_BHW3 = self.pipe(
                **arguments, num_inference_steps=steps, guidance_scale=guidance, generator=list(draws), output_type="np"
            ).images
        if not np.isfinite(images_BHW3).all():
            raise DataError(
                f"{self.settings.weights}: its pictures are not finite in {self.settings.precision}; set "
                "pretrained.precision to bfloat16 or float32"
            )
        return torch.from_numpy(images_BHW3).permute(0, 3, 1, 2).float()

    def _condition(self, vectors_BD: torch.Tensor, unknown_BD: torch.Tensor, guidance: float) -> dict[str, Any]:
        """How each pipeline wants to be told the vectors; the text is empty, and guidance along the vector alone."""
        if self.settings.pipeline == "kandinsky":
            return {"image_embeds": vectors_BD, "negative_image_embeds": unknown_BD}
        text = {"prompt": [""] * len(vectors_BD), "negative_prompt": [""] * len(vectors_BD)}
        if self.settings.pipeline == "unclip":
            return {**text, "image_embeds": vectors_BD, "noise_level": self.settings.noise_level}
        both = torch.cat([unknown_BD, vectors_BD]) if guidance > 1 else vectors_BD
        return {**text, "ip_adapter_image_embeds": [both[:, None]]}

    def autoencoder(self, size: int) -> Autoencoder:
        """The pipeline's autoencoder alone, for pictures of `size` pixels: enlarged to its own side, and back."""
        vae = self.vae
        kandinsky = self.settings.pipeline == "kandinsky"
        scale = 1.0 if kandinsky else float(vae.config.scaling_factor)

        def forward(images: torch.Tensor) -> torch.Tensor:
            images = interpolate(images.float(), (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
            with _without_overflow(vae) as dtype:
                out = vae.encode((2 * images - 1).to(dtype))
            latents: torch.Tensor = (out.latents if kandinsky else out.latent_dist.mode()).float() * scale
            return latents

        def backward(latents: torch.Tensor) -> torch.Tensor:
            more = {"force_not_quantize": True} if kandinsky else {}
            with _without_overflow(vae) as dtype:
                images = vae.decode((latents.float() / scale).to(dtype), **more).sample.float()
            return interpolate((images + 1) / 2, (size, size), mode="bicubic", antialias=True)

        channels = int(vae.config.latent_channels)
        return Autoencoder(
            type(vae).__name__, "diffusers", channels, 1, self.settings.precision, self.digest, self.device, forward,
            backward,
        )  # fmt: skip


@contextmanager
def _without_overflow(vae: Any) -> Iterator[torch.dtype]:
    """The autoencoder's arithmetic; float32 where float16 would overflow, as in diffusers' pipelines."""
    overflows = vae.dtype == torch.float16 and vae.config.get("force_upcast")
    if overflows:
        vae.to(torch.float32)
    try:
        yield vae.dtype
    finally:
        if overflows:
            vae.to(torch.float16)


def load_pipeline(found: Found, settings: PretrainedSettings, device: torch.device) -> Pipeline:
    """Load what was found. Raises `DataError` (weights of another architecture, damaged), `MissingError` (package)."""
    diffusers, transformers = libraries()
    name = CLASSES[settings.pipeline][settings.strength < 1]
    more: dict[str, Any] = {"variant": settings.variant} if settings.variant else {}
    with faults("pretrained.weights", str(found.folder), f"a {name}"), quietly(diffusers), quietly(transformers):
        pipe = getattr(diffusers, name).from_pretrained(
            found.folder, use_safetensors=True, local_files_only=True, torch_dtype=TYPES[settings.precision], **more
        )
        _check_weights(pipe, found.folder, settings.variant)
        if settings.pipeline != "kandinsky":
            (_with_unknown if settings.pipeline == "unclip" else _row_by_row)(pipe)
        if found.adapter is not None:
            pipe.load_ip_adapter(
                str(found.adapter.parent), subfolder="", weight_name=found.adapter.name, image_encoder_folder=None,
                local_files_only=True,
            )  # fmt: skip
            pipe.set_ip_adapter_scale(settings.adapter_scale)
    pipe.set_progress_bar_config(disable=True)
    if hasattr(pipe, "vae"):
        pipe.vae.enable_slicing()  # a batch is decoded picture by picture: memory
    return Pipeline(settings, _placed(pipe, settings, device), device, files_digest(found, settings.variant))


def _check_weights(pipe: Any, folder: Path, variant: str) -> None:
    """Raises `DataError` where a part was not filled from its files: libraries take random numbers instead."""
    for name, part in pipe.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        there: set[str] = set()
        for path in part_files(folder / name, variant):
            with safe_open(path, "pt") as file:
                there |= set(map(_plain, file.keys()))
        if lacking := sorted({_plain(key) for key in part.state_dict()} - there):
            raise DataError(
                f"{folder / name}: its weights lack {lacking[0]} ({len(lacking)} in all): they are of another "
                "architecture, or incomplete"
            )


def _plain(key: str) -> str:
    """The key as libraries have it after loading: transformers 5 drops the prefix of CLIP's two towers, which published
    files have, and diffusers renames the attention of autoencoders that were published before May 2023."""
    key = re.sub(r"^(text|vision)_model\.", "", key)
    return re.sub(r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)", lambda m: OLD_NAMES[m[1]], key)


def _with_unknown(pipe: Any) -> None:
    """Let the unCLIP pipeline take zeros for its own "no vector": the noise level's embedding is then zero, too."""
    own = pipe.noise_image_embeddings

    def noisy(image_embeds: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        found: torch.Tensor = own(image_embeds, *args, **more)
        return found * image_embeds.any(1, keepdim=True)

    pipe.noise_image_embeddings = noisy


def _row_by_row(pipe: Any) -> None:
    """Let the SDXL pipeline draw each picture of a batch from its own vector alone, without a watermark in its pixels.

    diffusers 0.42 repeats a batch's vectors for each of its pictures: every one attends to all.
    """
    pipe.prepare_ip_adapter_image_embeds = lambda image, vectors, *_: vectors
    pipe.watermark = None


def _placed(pipe: Any, settings: PretrainedSettings, device: torch.device) -> Any:
    if not settings.offload:
        return pipe.to(device)
    try:
        pipe.enable_model_cpu_offload(device=device)
    except ImportError:  # of accelerate
        raise MissingError(
            "pretrained.offload = true needs a package: pip install 'synapse-diffusion[generators]'"
        ) from None
    return pipe
