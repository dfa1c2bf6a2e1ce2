"""Networks that the field compares pictures with, from torchvision and dreamsim, whose only door this is.

Weights are the published files, in a folder of the user's or in torch hub's cache; nothing is downloaded here. Sizes
and layers are those of MindEye's evaluation (Scotti et al. 2023, https://github.com/MedARC-AI/fMRI-reconstruction-NSD):
whole pictures, resized and not cropped. Its "AlexNet-2" and "AlexNet-5" are modules 4 and 11 of `features`, which are
the second and the fifth convolution after their ReLU and before pooling, as in Ozcelik & VanRullen 2023.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from synapse_diffusion.encoders.pixels import BICUBIC, BILINEAR, Preparation, Tower, state_digest
from synapse_diffusion.errors import DataError, MissingError

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
COUNTER: Final = "num_batches_tracked"  # of batch normalisation: older files lack it, and nothing here reads it
DREAMSIM_FILES: Final = (
    "dino_vitb16_pretrain.pth", "open_clip_vitb16_pretrain.pth.tar", "clip_vitb16_pretrain.pth.tar", "ensemble_lora",
)  # fmt: skip
LPIPS_SHIFT: Final = (-0.030, -0.088, -0.188)
LPIPS_SCALE: Final = (0.458, 0.448, 0.450)
LPIPS_SIZE: Final = 256
LPIPS_MODULES: Final = ("features.1", "features.4", "features.7", "features.9", "features.11")
State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Network:
    """A network of torchvision as the field uses it."""

    builder: str
    """Of `torchvision.models`."""
    file: str
    """Its weights, as published; the same name ending in .safetensors is taken too."""
    side: int
    layers: Mapping[str, str]
    """Our names, and the modules whose output they are."""
    resample: int = BILINEAR
    options: Mapping[str, Any] = field(default_factory=dict)
    spare: tuple[str, ...] = ()
    """Beginnings of weights that the file lacks, in layers after ours."""


ALEXNET: Final = Network("alexnet", "alexnet-owt-7be5be79.pth", 256, {"conv2": "features.4", "conv5": "features.11"})
INCEPTION: Final = Network(
    "inception_v3", "inception_v3_google-0cc3c7bd.pth", 342, {"avgpool": "avgpool"},
    options={"init_weights": False, "transform_input": True, "aux_logits": True},
)  # fmt: skip
EFFICIENTNET: Final = Network("efficientnet_b1", "efficientnet_b1-c27df63c.pth", 255, {"avgpool": "avgpool"})
SWAV: Final = Network("resnet50", "swav_800ep_pretrain.pth.tar", 224, {"avgpool": "avgpool"}, spare=("fc.",))
VIT_H: Final = Network(
    "vit_h_14", "vit_h_14_swag-80465313.pth", 518, {"logits": "heads"}, BICUBIC, options={"image_size": 518}
)


def build_torchvision(network: Network, folder: Path | None, device: torch.device) -> Tower:
    """A network with its published weights. Raises `MissingError` (torchvision, file), `DataError` (other weights)."""
    model, state = _loaded(network, folder, device)
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (MEAN, STD))
    catch = _Catch(model, network.layers)

    def forward(images_B3HW: torch.Tensor, layers: Sequence[str], token: str) -> dict[str, torch.Tensor]:
        found = catch((images_B3HW - mean) / std)
        return {layer: found[layer].flatten(1) for layer in layers}

    preparation = Preparation((network.side, network.side), None, network.resample)
    digest = state_digest(state, network.builder, MEAN, STD, preparation)
    name = network.file.split(".")[0]
    return Tower(name, preparation, tuple(network.layers), tuple(network.layers), digest, forward)


def build_lpips(folder: Path | None, device: torch.device) -> Tower:
    """LPIPS 0.1 on AlexNet (Zhang et al. 2018, https://arxiv.org/abs/1801.03924, equation 1), at 256 x 256.

    `d = sum_l 1/(H_l W_l) sum_hw |w_l (y_l - y0_l)|^2`, y of length one over channels, is a squared Euclidean distance:
    the layer `lpips` is the vectors that it is between. The linear weights are `alex.pth` of the package lpips (0.1.4).
    """
    model, state = _loaded(ALEXNET, folder, device)
    linear = [tensor.to(device) for tensor in _lpips_weights(folder)]
    shift, scale = (torch.tensor(value, device=device)[:, None, None] for value in (LPIPS_SHIFT, LPIPS_SCALE))
    catch = _Catch(model, {module: module for module in LPIPS_MODULES})

    def forward(images_B3HW: torch.Tensor, layers: Sequence[str], token: str) -> dict[str, torch.Tensor]:
        found = catch((2 * images_B3HW - 1 - shift) / scale)
        vectors = []
        for module, weight_1D11 in zip(LPIPS_MODULES, linear, strict=True):
            map_BDHW = found[module].float()
            unit_BDHW = map_BDHW / (map_BDHW.norm(dim=1, keepdim=True) + 1e-10)
            vectors.append((unit_BDHW * (weight_1D11 / unit_BDHW[0, 0].numel()).sqrt()).flatten(1))
        return {"lpips": torch.cat(vectors, 1)}

    preparation = Preparation((LPIPS_SIZE, LPIPS_SIZE), None, BILINEAR)
    weights = {f"lin{k}": tensor for k, tensor in enumerate(linear)}
    digest = state_digest({**state, **weights}, "lpips 0.1", preparation)
    return Tower("lpips-alex", preparation, ("lpips",), ("lpips",), digest, forward)


def build_dreamsim(folder: Path | None, device: torch.device) -> Tower:
    """DreamSim's ensemble (Fu et al. 2023, https://arxiv.org/abs/2306.09344) by the package dreamsim, 224 x 224.

    Its distance, 1 - cosine of embeddings that are normalised and centred, is 1 - correlation of the layer `embedding`.
    """
    if importlib.util.find_spec("dreamsim") is None:
        raise MissingError("DreamSim needs the package dreamsim: pip install 'synapse-diffusion[perceptual]'")
    lacking = [name for name in DREAMSIM_FILES if folder is None or not (folder / name).exists()]
    if lacking:
        raise MissingError(
            f"{(folder or Path()) / lacking[0]}: no such file; unpack DreamSim's ensemble checkpoint there"
        )
    try:
        from dreamsim import dreamsim

        with contextlib.redirect_stdout(io.StringIO()):  # it prints where it reads
            model, _ = dreamsim(pretrained=True, device=str(device), cache_dir=str(folder))
    except Exception as error:  # of any kind: its packages, its files
        raise MissingError(f"DreamSim cannot be loaded ({_line(error)}); install or fetch it again") from None

    def forward(images_B3HW: torch.Tensor, layers: Sequence[str], token: str) -> dict[str, torch.Tensor]:
        return {"embedding": model.embed(images_B3HW).reshape(len(images_B3HW), -1)}

    preparation = Preparation((224, 224), None, BICUBIC)
    digest = state_digest(model.state_dict(), "dreamsim ensemble", preparation)
    return Tower("dreamsim-ensemble", preparation, ("embedding",), ("embedding",), digest, forward)


class _Catch:
    """A network's outputs at named modules."""

    def __init__(self, model: torch.nn.Module, modules: Mapping[str, str]) -> None:
        self.model, self.found = model, dict[str, torch.Tensor]()
        for name, module in modules.items():
            model.get_submodule(module).register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def hook(module: torch.nn.Module, given: object, out: torch.Tensor) -> None:
            self.found[name] = out

        return hook

    def __call__(self, x_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
        self.found = {}
        self.model(x_B3HW)
        return self.found


def _loaded(
    network: Network, folder: Path | None, device: torch.device
) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The network with its weights, and those."""
    if importlib.util.find_spec("torchvision") is None:
        raise MissingError(f"{network.builder} needs torchvision: pip install 'synapse-diffusion[perceptual]'")
    path = _found(network.file, folder)
    try:
        import torchvision

        model: torch.nn.Module = getattr(torchvision.models, network.builder)(weights=None, **network.options)
    except Exception as error:  # a torchvision that was built for another torch fails in many ways
        raise MissingError(f"torchvision cannot be used ({_line(error)}); install the one for your torch") from None
    given = {key.removeprefix("module."): tensor for key, tensor in _read(path).items()}
    needed = {
        key: tuple(t.shape)
        for key, t in model.state_dict().items()
        if not key.startswith(network.spare) and not key.endswith(COUNTER)
    }
    for key, expected in needed.items():
        shape = tuple(given[key].shape) if key in given else None
        if shape != expected:
            raise DataError(f"{path}: {key} has shape {shape}, expected {expected}; fetch {network.file}")
    state = {key: given[key] for key in needed}
    model.load_state_dict(state, strict=False)
    return model.eval().requires_grad_(False).to(device), state


def _lpips_weights(folder: Path | None) -> list[torch.Tensor]:
    """Five (1, D, 1, 1), none below 0."""
    spec = importlib.util.find_spec("lpips")
    installed = [Path(place) / "weights/v0.1/alex.pth" for place in (spec and spec.submodule_search_locations) or ()]
    path = next((place for place in installed if place.is_file()), None) or _found("alex.pth", folder)
    state = _read(path)
    linear = [state.get(f"lin{k}.model.1.weight", torch.empty(0)).float() for k in range(len(LPIPS_MODULES))]
    if any(tensor.ndim != 4 or bool((tensor < 0).any()) for tensor in linear):
        raise DataError(f"{path}: does not hold LPIPS 0.1's five linear weights; install the package lpips")
    return linear


def _found(name: str, folder: Path | None) -> Path:
    """The file in the folder, or in torch hub's cache where none is named."""
    place = folder or Path(torch.hub.get_dir()) / "checkpoints"
    for path in (place / f"{name.split('.')[0]}.safetensors", place / name):
        if path.is_file():
            return path
    raise MissingError(f"{place / name}: no such file; fetch these published weights")


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, of safetensors, or of a .pth by torch's loader of tensors alone, which runs no code."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return {key: tensor for key, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    except Exception as error:  # of any kind: damaged files raise many
        raise DataError(f"{path}: not a readable file of weights ({_line(error)}); fetch it again") from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
