"""Settings of pictures: the generator, the prior before it, and reconstruction."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from synapse_diffusion.config.base import Count, NotNegative, Positive, Settings


class GeneratorSettings(Settings):
    """`train generator`: from an image's vector and a coarse copy of it to the picture."""

    size: Annotated[int, Field(ge=8, le=1024)] = 32
    """Pixels a side of what is drawn."""
    autoencoder: Literal["none", "taesd", "diffusers"] = "none"
    """What pictures are turned into before noise: `none` (pixels), or latents of an autoencoder."""
    weights: str = ""
    """Of the autoencoder: `taesd`: FOLDER/taef2, say; `diffusers`: a folder, or a name on huggingface.co."""
    components: Annotated[int, Field(ge=0)] = 64
    """Principal components of the images' vectors (`target.table`, `target.layers`) that are a condition; 0: none."""
    low_side: Annotated[int, Field(ge=0, le=64)] = 8
    """Pixels a side of the coarse copy, the low-level condition; 0: none."""
    low_components: Count = 48
    """Principal components of the coarse copies that are kept."""
    doubt: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the training rows whose conditions are as a calibrated decoder would give them: shrunk and noisy, of
    random accuracy. Without, a generator takes the vagueness of what a brain says for content."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training rows in which each condition is unknown (for guidance)."""
    prediction: Literal["flow", "v"] = "flow"
    """What the network learns: the velocity of a rectified flow, or v of a diffusion with cosine schedule."""
    min_snr: NotNegative = 0.0
    """`v`: largest weight of a time in the loss, by its ratio of signal to noise (min-SNR); 0: all times alike."""
    width: Annotated[int, Field(ge=8)] = 128
    """Of the diffusion transformer."""
    depth: Count = 4
    """Its blocks."""
    heads: Count = 4
    """Its attention heads."""
    patch: Count = 4
    """Pixels, or latents, a side of a patch."""
    steps: Count = 800
    """Steps of the optimizer."""
    checks: Count = 10
    """How often in these steps validation is looked at."""
    patience: Count = 10
    """Checks without a better validation loss before training stops."""
    batch: Count = 64
    """Pictures a step."""
    learning_rate: Positive = 1e-3
    """Largest rate of the schedule (AdamW; warm-up, then half a cosine)."""
    weight_decay: NotNegative = 0.01
    """Of all weights."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay a step of the averaged weights that are validated and kept."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed, other weights to begin with, another order and noise."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.autoencoder == "none") != (not self.weights):
            raise ValueError(f"autoencoder = {self.autoencoder!r} and weights = {self.weights!r} do not go together")
        if not self.components and not self.low_side:
            raise ValueError("components = 0 and low_side = 0: there would be no condition")
        if self.min_snr and self.prediction != "v":
            raise ValueError("min_snr weights the loss of prediction = 'v'; leave it out for a flow")
        if self.low_side > self.size:
            raise ValueError(f"low_side = {self.low_side} is above size = {self.size}")
        return self


class PriorSettings(Settings):
    """`reconstruct.prior = "flow"`: from what a brain says of a picture to conditions that a picture may have."""

    width: Annotated[int, Field(ge=8)] = 128
    """Of the network (residual layers, modulated by time and by what the brain says)."""
    depth: Count = 3
    """Its layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training rows in which the brain is unknown (for guidance)."""
    folds: Annotated[int, Field(ge=2)] = 4
    """Parts of the training concepts; what a brain says of each comes from a regression fitted to the others."""
    steps: Count = 600
    """Steps of the optimizer."""
    checks: Count = 10
    """How often in these steps validation is looked at."""
    patience: Count = 3
    """Checks without a better validation loss before training stops."""
    batch: Count = 128
    """Rows a step."""
    learning_rate: Positive = 1e-3
    """Largest rate of the schedule (AdamW; warm-up, then half a cosine)."""
    weight_decay: NotNegative = 0.01
    """Of all weights."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay a step of the averaged weights that are validated and kept."""
    sampling_steps: Count = 16
    """Of Heun's method."""
    guidance: NotNegative = 1.0
    """Classifier-free guidance; 1: none."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed, other weights to begin with, another order and noise."""


class PretrainedSettings(Settings):
    """`reconstruct` by a pretrained pipeline of diffusers, from an image encoder's vector to the picture. Then
    `generator.size` (pixels a side at which pictures are compared) and `generator.components` hold for it, below
    `strength = 1` `generator.low_side` and `low_components` too, and no generator is trained."""

    pipeline: Literal["none", "unclip", "ip_adapter", "kandinsky"] = "none"
    """`none`: the generator of `train generator`; Stable unCLIP, Stable Diffusion XL (Turbo) with an IP-Adapter, or
    Kandinsky 2.2's decoder (`pip install 'synapse-diffusion[generators]'`)."""
    weights: str = ""
    """The pipeline, in safetensors: a folder of `save_pretrained`, or a name on huggingface.co, which is downloaded."""
    adapter: str = ""
    """`ip_adapter`: its safetensors file, or OWNER/NAME/FILE on huggingface.co."""
    encoder: str = ""
    """The image encoder whose vectors the pipeline takes, a folder or a name on huggingface.co; empty: the
    `image_encoder` in the pipeline's folder. The embedding table must hold its vectors."""
    table: str = ""
    """The embedding table: a folder under `paths.embeddings`, or anywhere by its whole path; empty: the one that the
    decoder was trained with."""
    layer: str = "projection"
    """Of that table: the encoder's image embedding."""
    variant: str = ""
    """Of the weights' files: `fp16` for `diffusion_pytorch_model.fp16.safetensors`; empty: the plain ones."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights and arithmetic; half of the memory in `float16`, for GPUs."""
    offload: bool = False
    """Only the part that is at work is in the GPU's memory, the others wait in the computer's; changes no picture."""
    length: Literal["images", "predicted"] = "images"
    """Of the vectors: `images`: each brought to the training images' mean length, which pipelines know; a regression's
    expectation is shorter. `predicted`: as they are."""
    no_brain: Literal["mean", "unconditional"] = "mean"
    """What the control without a brain is drawn from: the training images' mean vector, which a decoder that knows
    nothing answers, or what the pipeline takes for no vector."""
    noise_level: Annotated[int, Field(ge=0, le=999)] = 0
    """`unclip`: steps of noise added to the vector, for vague ones."""
    adapter_scale: NotNegative = 1.0
    """`ip_adapter`: how much the vector counts beside the (empty) text."""
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    """`ip_adapter`, `kandinsky`: share of the steps that are sampled, beginning at the coarse copy that the brain says
    of the picture; 1: all, from noise, without a coarse copy."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        defaults = type(self).model_fields
        given = [name for name, value in self if name != "pipeline" and value != defaults[name].default]
        if self.pipeline == "none":
            if given:
                raise ValueError(f"{given[0]} is a setting of a pretrained pipeline; choose one by pipeline")
            return self
        if not self.weights:
            raise ValueError(f"pipeline = {self.pipeline!r} needs weights")
        if (self.pipeline == "ip_adapter") != bool(self.adapter):
            raise ValueError(f"pipeline = {self.pipeline!r} and adapter = {self.adapter!r} do not go together")
        if self.pipeline != "unclip" and not self.encoder:
            raise ValueError(f"pipeline = {self.pipeline!r} needs encoder: it brings none of its own")
        owners = {"noise_level": ("unclip",), "adapter_scale": ("ip_adapter",), "strength": ("ip_adapter", "kandinsky")}
        for name, kinds in owners.items():
            if name in given and self.pipeline not in kinds:
                raise ValueError(f"{name} is a setting of {' and '.join(kinds)}, not of {self.pipeline!r}")
        return self


class ReconstructSettings(Settings):
    """`reconstruct`: from test trials to pictures, and how good these are."""

    features: Literal["signal", "decoder"] = "signal"
    """What conditions are predicted from, by ridge regression fitted on training trials: time-binned signals, or the
    decoder's outputs (of training trials, where it can, those of the linear path that left their concept out)."""
    prior: Literal["regression", "flow"] = "regression"
    """What is drawn from: the regression's expectation, or samples of a rectified flow given that (branch `prior`),
    trained on training trials that the regression left out. Controls go the same way."""
    k_repeats: tuple[Annotated[int, Field(ge=0)], ...] = (1, 0)
    """Repeats of a test image averaged before it is reconstructed; 0: as many as every person has of every image."""
    samples: Count = 2
    """Pictures of each."""
    controls: tuple[Literal["shuffled", "none", "other_person", "true"], ...] = (
        "shuffled", "none", "other_person", "true",
    )  # fmt: skip
    """What stands beside it, of the same seeds: another trial's signal, no brain, this person's signal under another
    person's weights, and the true vectors (the ceiling)."""
    bottleneck: tuple[Count, ...] = ()
    """Also from a brain that says so few numbers (BrainBits): how many does a picture of this quality need?"""
    sampler: Literal["auto", "ddim", "dpm_solver_pp_2m", "euler_flow", "heun_flow"] = "auto"
    """`auto`: `heun_flow` for a flow, `dpm_solver_pp_2m` for `v`."""
    sampling_steps: Count = 16
    """Of the sampler."""
    shift: Positive = 3.0
    """Of a flow's times towards noise, where colours and large shapes are decided; 1: none."""
    last_time: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """From this time on (before the shift) one step leads to the picture: smooth, where a small generator would draw
    grain; 0: every step is as long."""
    temperature: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Of the noise that our own generator begins at; below 1, pictures are nearer to what is expected of them, and vary
    less in what the brain does not say."""
    guidance: NotNegative = 3.0
    """How far away from unconditional pictures (classifier-free guidance); 1: none."""
    darknet: str = ""
    """Tiny Darknet's safetensors file, for columns of two-way identification by its layers."""
    clip: str = ""
    """CLIP ViT-L/14, a folder or a name on huggingface.co, for its column."""
    networks: str = ""
    """Folder of torchvision's published weights (AlexNet, Inception, ...), for their columns."""
    dreamsim: str = ""
    """Folder of DreamSim's ensemble checkpoint, for its column."""
    batch: Count = 64
    """Pictures drawn at once."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the pictures' noise: one seed, image and sample, one noise, whatever the condition."""
