"""The only door to transformers: vision models by hub name or local folder, weights in safetensors only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from synapse_diffusion.encoders.loading import faults, quietly
from synapse_diffusion.encoders.pixels import Preparation, Tower, pooled, state_digest
from synapse_diffusion.errors import DataError, MissingError, SettingsError

# the towers that hold only what a picture needs, also when the checkpoint has a text side; all others: AutoModel
CLASSES: Final = {
    "clip": "CLIPVisionModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
PROBE_TOLERANCE: Final = 0.1  # of normalised pixels: torchvision's and Pillow's filters differ by 0.03 here


@dataclass(frozen=True)
class Pixels:
    """What the model's own processor does to pixels, from its configuration."""

    preparation: Preparation
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        """Images in 0..1 -> what the model takes."""
        mean, std = (torch.tensor(value).to(images_B3HW)[:, None, None] for value in (self.mean, self.std))
        return (images_B3HW * self.scale - mean) / std


def build_transformers(weights: str, device: torch.device) -> Tower:
    """Layers `block_0` (what enters the first block) .. `block_n`, `last` (after the final norm, where there is one),
    and, as far as the model has them, `pooled` (its own summary) and `projection` (CLIP's image embedding).

    `-1` is `last`, `-2` the block before the last, as in transformers' `hidden_states`. A layer's tokens are pooled by
    `embed.token`. Resizing and cropping are ours, with the numbers of the model's processor, and are compared with
    what that processor does to one picture.

    Raises `MissingError` (package, folder, weights or network), `DataError` (not a vision model, or damaged).
    """
    try:
        import transformers
    except ImportError:
        raise MissingError(
            "embed.encoder = 'transformers' needs a package: pip install 'synapse-diffusion[encoders]'"
        ) from None
    if Path(weights).is_dir():
        _check_folder(Path(weights))
    elif not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", weights):
        raise MissingError(f"embed.weights = {weights!r}: no such folder, and not a name on huggingface.co")
    with quietly(transformers), faults("embed.weights", weights, "a vision model"):
        config = transformers.AutoConfig.from_pretrained(weights)
        processor = transformers.AutoImageProcessor.from_pretrained(_processor_place(weights))
        own: dict[str, Any] = _variant(Path(weights))
        loader = getattr(transformers, CLASSES.get(config.model_type, "AutoModel"))
        if config.model_type == "clip":  # the tower's own configuration may have kept the default of 512
            config.vision_config.projection_dim = config.projection_dim
            own["config"] = config.vision_config
        model, info = loader.from_pretrained(weights, use_safetensors=True, output_loading_info=True, **own)
        model = model.float().eval().requires_grad_(False).to(device)
        pixels = _pixels(processor, weights)
        _compare(processor, pixels, weights)
    new = sorted(info["missing_keys"]) + sorted(map(str, info.get("mismatched_keys") or ()))
    lacking = [name for name in new if not re.search(r"(^|\.)pooler\.", name)]
    if lacking:
        raise DataError(f"{weights}: its weights lack {lacking[0]} ({len(lacking)} in all); take a complete checkpoint")
    layers = _layers(model, pixels.preparation.size, weights, has_pooler=not new)
    n = sum(layer.startswith("block_") for layer in layers) - 1
    aliases = {"-1": "last", **{f"-{n + 1 - k}": f"block_{k}" for k in range(n)}}

    def forward(images_B3HW: torch.Tensor, wanted: Sequence[str], token: str) -> dict[str, torch.Tensor]:
        found = _outputs(model, pixels.normalised(images_B3HW))
        patch = _patch(model)
        grid = None if patch is None else (images_B3HW.shape[2] // patch[0], images_B3HW.shape[3] // patch[1])
        return {
            layer: found[layer].flatten(1) if layer in ("pooled", "projection") else _pooled(found[layer], grid, token)
            for layer in wanted
        }

    digest = state_digest(model.state_dict(), config.model_type, pixels)
    name = re.sub(r"[^\w.-]+", "-", Path(weights).resolve().name if Path(weights).is_dir() else weights.split("/")[-1])
    default = ("projection",) if "projection" in layers else ("last",)
    about = ", ".join((f"block_0 .. block_{n}", *layers[n + 1 :]))
    return Tower(name, pixels.preparation, layers, default, digest, forward, about, aliases)


def _outputs(model: Any, pixels_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
    """All layers by name: tokens (B, P, D) or maps (B, D, H, W); `pooled` and `projection` one vector a picture."""
    tower = getattr(model, "vision_model", model) if hasattr(model, "visual_projection") else model
    out = tower(pixel_values=pixels_B3HW, output_hidden_states=True)
    found = {f"block_{k}": hidden for k, hidden in enumerate(out.hidden_states)}
    found["last"] = out.last_hidden_state
    if getattr(out, "pooler_output", None) is not None:
        found["pooled"] = out.pooler_output
        if hasattr(model, "visual_projection"):
            found["projection"] = model.visual_projection(out.pooler_output)
    return found


def _pooled(hidden: torch.Tensor, grid: tuple[int, int] | None, token: str) -> torch.Tensor:
    if hidden.ndim == 4:
        prefix, map_BDHW = hidden[:, :0], hidden
    else:
        if grid is None or hidden.shape[1] < grid[0] * grid[1]:
            raise SettingsError(f"embed.encoder: {hidden.shape[1]} tokens are no grid of patches; take another model")
        n = hidden.shape[1] - grid[0] * grid[1]  # class token, then registers (DINOv2); none in SigLIP
        prefix, map_BDHW = hidden[:, :n], hidden[:, n:].transpose(1, 2).reshape(len(hidden), -1, *grid)
    if token == "cls" and not prefix.shape[1]:
        raise SettingsError("embed.token = 'cls': this model has no class token; take mean, max, grid or auto")
    if token == "cls" or (token == "auto" and prefix.shape[1]):
        return prefix[:, 0]
    return pooled(map_BDHW, token)


def _patch(model: Any) -> tuple[int, int] | None:
    patch = getattr(model.config, "patch_size", None)
    return (patch, patch) if isinstance(patch, int) else (None if patch is None else (patch[0], patch[1]))


def _layers(model: Any, size: tuple[int, int], weights: str, has_pooler: bool) -> tuple[str, ...]:
    """What the model offers, by asking it for one grey picture."""
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            found = _outputs(model, torch.zeros(1, 3, *size, device=device))
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{weights}: its model does not take pictures of {size[0]} x {size[1]}: {reason}") from None
    return tuple(layer for layer in found if layer != "pooled" or has_pooler)


def _pixels(processor: Any, weights: str) -> Pixels:
    values = processor.to_dict()
    resize: tuple[int, int] | int | None = None
    size = values.get("size") or {}
    if values.get("do_resize"):
        if "shortest_edge" in size and "longest_edge" not in size:
            resize = int(size["shortest_edge"])
        elif "height" in size and "width" in size:
            resize = (int(size["height"]), int(size["width"]))
        else:
            raise DataError(f"{weights}: its processor resizes to {size}, which is not one size for all pictures")
    crop = values.get("crop_size") if values.get("do_center_crop") else None
    if crop is None and not isinstance(resize, tuple):
        raise DataError(f"{weights}: its processor resizes to {size} without a crop: pictures would differ in size")
    normalise = values.get("do_normalize")
    return Pixels(
        Preparation(resize, None if crop is None else (int(crop["height"]), int(crop["width"])),
                    int(values.get("resample", 2))),
        255 * float(values["rescale_factor"]) if values.get("do_rescale") else 255.0,
        tuple(float(v) for v in values["image_mean"]) if normalise else (0.0,) * 3,
        tuple(float(v) for v in values["image_std"]) if normalise else (1.0,) * 3,
    )  # fmt: skip


def _compare(processor: Any, pixels: Pixels, weights: str) -> None:
    """Refuse a processor that does something that its configuration does not say in the words we read."""
    row, column = np.mgrid[0:97, 0:131]
    picture = Image.fromarray(np.stack([row * 2, column, (row + column) // 2 + 60], -1).astype(np.uint8))
    theirs = processor(images=picture, return_tensors="pt")["pixel_values"][0].float()
    ours = pixels.normalised(pixels.preparation.picture(picture)[None] / 255.0)[0]
    if theirs.shape != ours.shape or float((theirs - ours).abs().max()) > PROBE_TOLERANCE * max(1.0, pixels.scale):
        raise DataError(
            f"{weights}: its processor ({type(processor).__name__}) does more than resize, crop and normalise; "
            "take CLIP, SigLIP, DINOv2 or ViT"
        )


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise MissingError(f"{folder}: no config.json; set embed.weights to a folder made by save_pretrained")
    if not any(folder.glob("*.safetensors")):
        raise MissingError(f"{folder}: no weights in safetensors (pickled ones are never read); convert or fetch them")
    if not _has_processor(Path(_processor_place(str(folder)))):
        raise MissingError(f"{folder}: no preprocessor_config.json; copy it from where the weights are from")


def _processor_place(weights: str) -> str:
    """Where the processor's configuration is: in diffusers' pipelines beside the image encoder's folder."""
    folder = Path(weights)
    beside = [folder.parent / name for name in ("feature_extractor", "image_processor")] if folder.is_dir() else []
    return str(next((place for place in [folder, *beside] if _has_processor(place)), folder))


def _variant(folder: Path) -> dict[str, str]:
    """For a folder that has its weights only as `model.fp16.safetensors`, say: that variant."""
    named = sorted(folder.glob("model.*.safetensors"))
    plain = (folder / "model.safetensors").is_file() or any(folder.glob("model-*.safetensors"))
    return {"variant": named[0].name.split(".")[1].split("-")[0]} if named and not plain else {}


def _has_processor(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))
