"""Image vectors -> pictures by pretrained pipelines of diffusers: found, checked before anything runs, and asked.

Stable unCLIP (Rombach et al.; unCLIP: Ramesh et al. 2022), Stable Diffusion XL with an IP-Adapter (Podell et al. 2023;
Ye et al. 2023), Kandinsky 2.2's decoder (Razzhigaev et al. 2023). Each takes vectors as its image encoder gives them:
neither standardised nor of length one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
from synapse_diffusion.errors import DataError, MissingError, SettingsError

CLASSES: Final = {
    "unclip": ("StableUnCLIPImg2ImgPipeline", "StableUnCLIPImg2ImgPipeline"),
    "ip_adapter": ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
    "kandinsky": ("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline"),
}
"""Drawing from noise, and from a first picture."""
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt")
TYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_NAME: Final = r"[\w-][\w.-]*/[\w-][\w.-]*"
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """A pipeline's files, looked at but not loaded."""

    folder: Path
    adapter: Path | None
    encoder: str
    """The image encoder: a folder, or a name on huggingface.co."""
    width: int
    """Numbers of the vectors that the pipeline takes."""


def find_pipeline(settings: PretrainedSettings, device: torch.device) -> Found:
    """The files of a pipeline; downloaded where a name on huggingface.co is given.

    Raises `MissingError` (package, folder, network, weights that are not safetensors), `DataError` (another pipeline),
    `SettingsError`.
    """
    diffusers, _ = _libraries()
    if settings.offload and device.type == "cpu":
        raise SettingsError("pretrained.offload = true saves a GPU's memory; on a CPU leave it out")
    folder, known = Path(settings.weights), CLASSES[settings.pipeline]
    if not folder.is_dir():
        if not re.fullmatch(HUB_NAME, settings.weights):
            raise MissingError(
                f"pretrained.weights = {settings.weights!r}: no such folder, and not OWNER/NAME on huggingface.co"
            )
        with faults("pretrained.weights", settings.weights, "a pipeline"), quietly(diffusers):
            _check_class(diffusers.DiffusionPipeline.load_config(settings.weights), known, settings.weights)
            more = {"variant": settings.variant} if settings.variant else {}
            folder = Path(diffusers.DiffusionPipeline.download(settings.weights, use_safetensors=True, **more))
    index = _json(
        folder / "model_index.json", "set pretrained.weights to a folder made by a pipeline's save_pretrained"
    )
    _check_class(index, known, str(folder))
    for name in _parts(index):
        _check_part(folder / name, settings.variant)
    adapter = _find_adapter(settings.adapter) if settings.adapter else None
    encoder = settings.encoder or str(folder / "image_encoder")
    return Found(folder, adapter, encoder, _width(settings.pipeline, folder, adapter))


def _libraries() -> tuple[Any, Any]:
    """diffusers, and transformers, without which it has no such pipelines."""
    try:
        import diffusers  # takes seconds
        import transformers
    except ImportError:
        raise MissingError(
            "a pretrained pipeline needs packages: pip install 'synapse-diffusion[generators]'"
        ) from None
    return diffusers, transformers


def _check_class(index: Mapping[str, Any], known: Sequence[str], weights: str) -> None:
    if (found := index.get("_class_name")) not in known:
        raise DataError(f"{weights}: holds {found}, not {known[0]}; choose its pipeline, or other weights")


def _parts(index: Mapping[str, Any]) -> list[str]:
    """Folders of a pipeline: `name: [library, class]`, both null where there is none."""
    return [name for name, value in index.items() if isinstance(value, list) and value[0]]


def _check_part(folder: Path, variant: str) -> None:
    if not folder.is_dir():
        raise MissingError(f"{folder}: missing; fetch the whole pipeline")
    if any(path.suffix in PICKLES for path in folder.iterdir()) and not _files(folder, variant):
        raise MissingError(f"{folder}: no weights in safetensors (pickled ones are never read); convert or fetch them")
    if any(folder.glob("*.safetensors")) and not _files(folder, variant):
        name = f"variant {variant!r}" if variant else "the plain variant"
        raise MissingError(f"{folder}: has no weights of {name}; set pretrained.variant to that of its files")


def _files(folder: Path, variant: str) -> list[Path]:
    """A part's weights: of the variant, else plain, as diffusers chooses."""
    every = sorted(folder.glob("*.safetensors"))
    plain = [path for path in every if path.name.count(".") == 1]
    own = [path for path in every if path.name.split(".")[1].split("-")[0] == variant]  # in one file, or in shards
    return own or plain if variant else plain


def _find_adapter(adapter: str) -> Path:
    path, hub = Path(adapter), re.fullmatch(rf"({HUB_NAME})/([\w./-]+)", adapter)
    if path.suffix != ".safetensors":
        raise MissingError(f"pretrained.adapter = {adapter!r}: not a safetensors file (pickled ones are never read)")
    if path.is_file():
        return path
    if hub is None:
        raise MissingError(f"pretrained.adapter = {adapter!r}: no such file, and not OWNER/NAME/FILE on huggingface.co")
    import huggingface_hub

    with faults("pretrained.adapter", adapter, "an IP-Adapter"):
        return Path(huggingface_hub.hf_hub_download(hub[1], hub[2]))


def _width(pipeline: str, folder: Path, adapter: Path | None) -> int:
    if adapter is not None:
        return _adapter_width(adapter)
    part, key = ("image_normalizer", "embedding_dim") if pipeline == "unclip" else ("unet", "encoder_hid_dim")
    width = _json(folder / part / "config.json", "fetch the whole pipeline").get(key)
    if not isinstance(width, int):
        raise DataError(f"{folder / part}: config.json has {key} = {width!r}: no network that takes an image's vector")
    return width


def _adapter_width(adapter: Path) -> int:
    with faults("pretrained.adapter", str(adapter.parent), "an IP-Adapter"), safe_open(adapter, "pt") as file:
        if "image_proj.proj.weight" not in file.keys():  # noqa: SIM118  # not a mapping
            raise DataError(
                f"{adapter}: not an IP-Adapter of one vector an image (no image_proj.proj.weight; the 'plus' ones take "
                "patches); take ip-adapter_sdxl or ip-adapter_sdxl_vit-h"
            )
        return int(file.get_slice("image_proj.proj.weight").get_shape()[1])


def _json(path: Path, way_out: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise MissingError(f"{path}: missing; {way_out}") from None
    except ValueError:
        raise DataError(f"{path}: damaged; {way_out}") from None
    found: dict[str, Any] = values
    return found


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
        with quietly(_libraries()[0]):
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
    diffusers, transformers = _libraries()
    name = CLASSES[settings.pipeline][settings.strength < 1]
    more: dict[str, Any] = {"variant": settings.variant} if settings.variant else {}
    with faults("pretrained.weights", str(found.folder), f"a {name}"), quietly(diffusers), quietly(transformers):
        pipe = getattr(diffusers, name).from_pretrained(
            found.folder, use_safetensors=True, local_files_only=True, torch_dtype=TYPES[settings.precision], **more
        )
        _check_weights(pipe, found.folder, settings.variant)
        if settings.pipeline != "kandinsky":
            pipe = (_with_unknown if settings.pipeline == "unclip" else _row_by_row)(pipe)
        if found.adapter is not None:
            pipe.load_ip_adapter(
                str(found.adapter.parent), subfolder="", weight_name=found.adapter.name, image_encoder_folder=None,
                local_files_only=True,
            )  # fmt: skip
            pipe.set_ip_adapter_scale(settings.adapter_scale)
    pipe.set_progress_bar_config(disable=True)
    if hasattr(pipe, "vae"):
        pipe.vae.enable_slicing()  # a batch is decoded picture by picture: memory
    return Pipeline(settings, _placed(pipe, settings, device), device, _digest(found, settings.variant))


def _check_weights(pipe: Any, folder: Path, variant: str) -> None:
    """Raises `DataError` where a part was not filled from its files: libraries take random numbers instead."""
    for name, part in pipe.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        there: set[str] = set()
        for path in _files(folder / name, variant):
            with safe_open(path, "pt") as file:
                there |= {_plain(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
        if lacking := sorted({_plain(key) for key in part.state_dict()} - there):
            raise DataError(
                f"{folder / name}: its weights lack {lacking[0]} ({len(lacking)} in all): they are of another "
                "architecture, or incomplete"
            )


def _plain(key: str) -> str:
    """transformers 5 drops the prefix of CLIP's two towers, which published files have."""
    return re.sub(r"^(text|vision)_model\.", "", key)


def _with_unknown(pipe: Any) -> Any:
    """The unCLIP pipeline, with a vector of zeros as its own "no vector": zeros for the noise level's embedding too."""

    class WithUnknown(type(pipe)):  # type: ignore[misc]
        def noise_image_embeddings(self, image_embeds: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
            noisy: torch.Tensor = super().noise_image_embeddings(image_embeds, *args, **more)
            return noisy * image_embeds.any(1, keepdim=True)

    return WithUnknown(**pipe.components)


def _row_by_row(pipe: Any) -> Any:
    """The SDXL pipeline, with each picture of a batch drawn from its own vector alone.

    diffusers (0.42, its issue 9813) repeats a batch's vectors for each of its pictures: every one attends to all.
    """

    class RowByRow(type(pipe)):  # type: ignore[misc]
        def prepare_ip_adapter_image_embeds(self, image: None, vectors: list[torch.Tensor], *_: Any) -> Any:
            return vectors

    return RowByRow(**pipe.components, add_watermarker=False)  # a watermark would change the pixels that are scored


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


def _digest(found: Found, variant: str) -> str:
    """SHA-256 of the files that are read, by their names in the pipeline."""
    paths = [found.folder / "model_index.json"]
    for part in (found.folder / name for name in _parts(_json(paths[0], "fetch the whole pipeline"))):
        paths += [*sorted(part.glob("*.json")), *sorted(part.glob("*.txt")), *_files(part, variant)]
    named = {str(path.relative_to(found.folder)): path for path in paths}
    digest = hashlib.sha256()
    for name, path in {**named, **({"adapter": found.adapter} if found.adapter else {})}.items():
        with path.open("rb") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
