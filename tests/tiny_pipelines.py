"""Tiny pipelines of diffusers' real classes with random weights, saved as the published ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

WIDTH, SIDE = 16, 16  # numbers of a vector, pixels of a picture
UNET: dict[str, Any] = {
    "sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1,
    "attention_head_dim": 4,
}  # fmt: skip
CROSS: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip


def make_pipelines(folder: Path) -> Path:
    """`unclip`, `sdxl`, `kandinsky`: folders of `save_pretrained`; `adapter.safetensors`; random weights."""
    diffusers: Any = pytest.importorskip("diffusers")
    tr: Any = pytest.importorskip("transformers")
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(tr, folder)
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 8, "bos_token_id": 52, "eos_token_id": 53,
        "pad_token_id": 53,
    }  # fmt: skip
    towers = (
        tr.CLIPTextModel(tr.CLIPTextConfig(**text)),
        tr.CLIPTextModelWithProjection(tr.CLIPTextConfig(**text, projection_dim=16)),
    )
    vae = diffusers.AutoencoderKL(
        latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), norm_num_groups=2, scaling_factor=0.7,
    )  # fmt: skip
    normalizer: Any = diffusers.pipelines.stable_diffusion.StableUnCLIPImageNormalizer(WIDTH)
    normalizer.std.data.mul_(0.5)
    diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=tr.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        image_encoder=tiny_encoder(tr), image_normalizer=normalizer,
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"), tokenizer=tokenizer,
        text_encoder=towers[0], scheduler=diffusers.DDIMScheduler(), vae=vae,
        unet=diffusers.UNet2DConditionModel(
            **UNET, **CROSS, cross_attention_dim=16, class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * WIDTH,
        ),
    ).save_pretrained(folder / "unclip")  # fmt: skip
    as_published(folder / "unclip")
    unet = diffusers.UNet2DConditionModel(
        **UNET, **CROSS, cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=40,
    )  # fmt: skip
    diffusers.StableDiffusionXLPipeline(
        vae=vae, text_encoder=towers[0], text_encoder_2=towers[1], tokenizer=tokenizer, tokenizer_2=tokenizer,
        unet=unet, scheduler=diffusers.EulerAncestralDiscreteScheduler(timestep_spacing="trailing"),
    ).save_pretrained(folder / "sdxl")  # fmt: skip
    save_file(tiny_adapter(unet), folder / "adapter.safetensors")
    decoder = diffusers.UNet2DConditionModel(
        **UNET, in_channels=4, out_channels=8, addition_embed_type="image", encoder_hid_dim_type="image_proj",
        encoder_hid_dim=WIDTH, cross_attention_dim=16, resnet_time_scale_shift="scale_shift",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )  # fmt: skip
    movq = diffusers.VQModel(
        latent_channels=4, vq_embed_dim=4, num_vq_embeddings=8, block_out_channels=(32, 32), norm_num_groups=4,
        norm_type="spatial", down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    )  # fmt: skip
    noise = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    diffusers.KandinskyV22Pipeline(unet=decoder, scheduler=noise, movq=movq).save_pretrained(folder / "kandinsky")
    return folder


def tiny_tokenizer(tr: Any, folder: Path) -> Any:
    letters = [chr(c) for c in range(97, 123)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return tr.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


def tiny_encoder(tr: Any) -> Any:
    config = tr.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=WIDTH, initializer_factor=5.0,
    )  # fmt: skip
    return tr.CLIPVisionModelWithProjection(config)


def tiny_adapter(unet: Any) -> dict[str, torch.Tensor]:
    """A published IP-Adapter's tensors: a projection to four tokens, keys and values of each cross-attention."""
    found = {"proj.weight": torch.randn(4 * 32, WIDTH) / 4, "proj.bias": torch.zeros(4 * 32)}
    found |= {"norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)}
    found = {f"image_proj.{name}": value for name, value in found.items()}
    cross = [name.rsplit(".", 1)[0] for name in unet.attn_processors if name.endswith("attn2.processor")]
    for k, name in enumerate(cross):
        width = unet.get_submodule(name).to_q.weight.shape[0]
        found |= {f"ip_adapter.{2 * k + 1}.to_{w}_ip.weight": torch.randn(width, 32) / 4 for w in "kv"}
    return found


def as_published(pipeline: Path) -> None:
    """Names as in files of 2023: of towers, which transformers 5 writes without the prefix; of autoencoders' attention,
    which diffusers renamed."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    path = next((pipeline / "vae").glob("*.safetensors"))
    renamed = {}
    for name, value in load_file(path).items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        renamed[name] = value
    assert any(".query." in name for name in renamed)
    save_file(renamed, path, {"format": "pt"})
    path = pipeline / "text_encoder/model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(path).items()}
    save_file({**tensors, "text_model.embeddings.position_ids": torch.arange(8)[None]}, path, {"format": "pt"})
