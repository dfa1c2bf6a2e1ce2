"""Images -> vectors: without weights (`gist`), Tiny Darknet from a file, or any vision model of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from synapse_diffusion.config import EmbedSettings
from synapse_diffusion.encoders.darknet import build_darknet
from synapse_diffusion.encoders.gist import build_gist
from synapse_diffusion.encoders.hub import build_transformers
from synapse_diffusion.encoders.pixels import Tower, blurred
from synapse_diffusion.errors import SettingsError


@dataclass(frozen=True)
class Encoder:
    """Images -> `{layer: (B, D)}`, deterministic, without gradients."""

    tower: Tower
    sharp: tuple[str, ...]
    blur: tuple[float, ...]
    """Standard deviations in pixels at the encoder's input size."""
    token: str
    precision: str
    device: torch.device

    @property
    def name(self) -> str:
        """Short, fit for a folder's name."""
        return self.tower.name

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels of what `prepare` gives."""
        return self.tower.preparation.size

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of what `encode` gives; those of blurred images end in `@blur` and the standard deviation."""
        return (*self.sharp, *(f"{layer}@blur{sigma:g}" for sigma in self.blur for layer in self.sharp))

    @property
    def digest(self) -> str:
        """Of weights and preprocessing."""
        return self.tower.digest

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """An RGB picture of any size as (3, H, W) uint8, resized and cropped as the encoder was trained."""
        return self.tower.preparation.picture(picture)

    @torch.no_grad()
    def encode(self, images_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, 3, H, W) in 0..1 -> `{layer: (B, D)}`, float32, on the encoder's device.

        Images of another size than `size` are resized and cropped first.
        """
        images_B3HW = self.tower.preparation.images(images_B3HW.to(self.device, torch.float32))
        found: dict[str, torch.Tensor] = {}
        for sigma in (0.0, *self.blur):
            seen = blurred(images_B3HW, sigma) if sigma else images_B3HW
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                out = self.tower.forward(seen, self.sharp, self.token)
            suffix = f"@blur{sigma:g}" if sigma else ""
            found |= {f"{layer}{suffix}": out[layer].float() for layer in self.sharp}
        return found


def build_encoder(settings: EmbedSettings, device: torch.device | str = "cpu") -> Encoder:
    """The encoder that a recipe asks for.

    Raises `MissingError` (package, weights, network), `DataError` (damaged or unfit weights), `SettingsError` (a layer
    or pooling that this encoder does not have).
    """
    device = torch.device(device)
    if settings.encoder == "gist":
        tower = build_gist(device)
    elif settings.encoder == "darknet":
        tower = build_darknet(Path(settings.weights), device)
    else:
        tower = build_transformers(settings.weights, device)
    asked = [tower.aliases.get(layer, layer) for layer in settings.layers] or list(tower.default)
    for layer in asked:
        if layer not in tower.layers:
            raise SettingsError(
                f"embed.layers: {tower.name} has no {layer!r}; it has {tower.about or ', '.join(tower.layers)}"
            )
    encoder = Encoder(tower, tuple(dict.fromkeys(asked)), settings.blur, settings.token, settings.precision, device)
    encoder.encode(torch.zeros(1, 3, *encoder.size))  # a pooling that does not fit is said before any work
    return encoder
