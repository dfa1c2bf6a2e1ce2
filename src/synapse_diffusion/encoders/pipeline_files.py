"""Files of a pretrained pipeline: found or downloaded, and looked at before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from synapse_diffusion.config import PretrainedSettings
from synapse_diffusion.encoders.loading import faults, quietly
from synapse_diffusion.errors import DataError, MissingError, SettingsError

CLASSES: Final = {
    "unclip": ("StableUnCLIPImg2ImgPipeline", "StableUnCLIPImg2ImgPipeline"),
    "ip_adapter": ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
    "kandinsky": ("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline"),
}
"""Drawing from noise, and from a first picture."""
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt")
HUB_NAME: Final = r"[\w-][\w.-]*/[\w-][\w.-]*"


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
    diffusers, _ = libraries()
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


def libraries() -> tuple[Any, Any]:
    """diffusers, and transformers, without which it has no such pipelines. Raises `MissingError`."""
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
    if any(path.suffix in PICKLES for path in folder.iterdir()) and not part_files(folder, variant):
        raise MissingError(f"{folder}: no weights in safetensors (pickled ones are never read); convert or fetch them")
    if any(folder.glob("*.safetensors")) and not part_files(folder, variant):
        name = f"variant {variant!r}" if variant else "the plain variant"
        raise MissingError(f"{folder}: has no weights of {name}; set pretrained.variant to that of its files")


def part_files(folder: Path, variant: str) -> list[Path]:
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
        names = file.keys()
        if "image_proj.proj.weight" not in names:
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


def files_digest(found: Found, variant: str) -> str:
    """SHA-256 of the files that are read, by their names in the pipeline."""
    paths = [found.folder / "model_index.json"]
    for part in (found.folder / name for name in _parts(_json(paths[0], "fetch the whole pipeline"))):
        paths += [*sorted(part.glob("*.json")), *sorted(part.glob("*.txt")), *part_files(part, variant)]
    named = {str(path.relative_to(found.folder)): path for path in paths}
    digest = hashlib.sha256()
    for name, path in {**named, **({"adapter": found.adapter} if found.adapter else {})}.items():
        with path.open("rb") as file:
            digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
