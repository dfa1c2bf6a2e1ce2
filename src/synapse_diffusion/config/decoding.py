"""Settings of decoders: what they see, tell and are trained by, and how they are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from synapse_diffusion.config.base import (
    Count,
    Fraction,
    Interval,
    Names,
    NoneOrFraction,
    NotNegative,
    Positive,
    Settings,
    none_word,
)

DECODERS: Final[dict[str, tuple[str, ...]]] = {
    "compact": ("components", "width", "dropout"),
    "eegnet": ("components", "width", "dropout"),
    "tsconv": ("components", "width", "dropout", "projector"),
    "atm": ("components", "width", "dropout", "projector", "layers"),
    "brain_module": ("components", "width", "dropout", "projector", "layers", "sensor_dropout"),
}
"""What `model.name` may be, and the settings of `model` that each has; `register_decoder` adds to it."""


class ViewSettings(Settings):
    """Stored signal -> epochs, at training time."""

    start_s: float = 0.0
    """Start of the epoch relative to onset, in s."""
    stop_s: float = 0.8
    """End of the epoch, in s."""
    baseline: Interval = None
    """Interval in s whose mean is taken off each epoch; `none` by default (under RSVP it holds other pictures)."""
    channels: Names = ()
    """Only these channels; empty: all that every recording has."""
    scaling: Literal["robust", "mvnn", "none"] = "mvnn"
    """Fitted on training trials: median and interquartile range, or whitening by the shrunk covariance of residuals
    (MVNN, Guggenmos 2018)."""
    scaling_by: Literal["person", "session", "run"] = "session"
    """What has a scaler of its own; `session` aligns a person's sessions with each other."""
    clamp: NotNegative = 20.0
    """Largest absolute value after scaling; 0: none."""
    reject: Literal["none", "amplitude", "peak_to_peak", "autoreject"] = "none"
    """Leave out epochs by their largest absolute value, by their largest peak-to-peak value of any sensor, or by the
    latter with each person's limit found on training trials (Autoreject's global rule, Jas et al. 2017)."""
    reject_limit: NotNegative = 0.0
    """Limit of `amplitude` and `peak_to_peak`, in V or T before scaling."""
    targets: Literal["keep", "leave_out"] = "keep"
    """Trials with a motor response (`is_target`)."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.stop_s <= self.start_s:
            raise ValueError(f"stop_s = {self.stop_s} must be above start_s = {self.start_s}")
        if self.baseline is not None and self.baseline[1] <= self.baseline[0]:
            raise ValueError(f"baseline = {list(self.baseline)} must end after it starts")
        if (self.reject in ("amplitude", "peak_to_peak")) != (self.reject_limit > 0):
            raise ValueError(f"reject = {self.reject!r} and reject_limit = {self.reject_limit} do not go together")
        if len(set(self.channels)) != len(self.channels):
            raise ValueError(f"channels names one twice: {', '.join(self.channels)}")
        return self


class LabelSettings(Settings):
    """The classes or questions that trials are decoded into (`target.task`)."""

    source: Literal["things", "column"] = "things"
    """Categories of the image's concept from the THINGS table, or the trial table's `label`."""
    classes: Names = ()
    """Classes or questions by name; empty: all that occur (`column`), all 27 of THINGS (questions)."""
    several: Literal["leave_out", "first"] = "leave_out"
    """A trial that belongs to several of the classes is left out, or takes the first in the order given; a
    trial with none is always left out."""
    shuffled: bool = False
    """Negative control: classes dealt to training and validation concepts (or trials) at random."""


class TargetSettings(Settings):
    """What a decoder is to tell of a trial."""

    task: Literal["classify", "questions", "retrieve"] = "classify"
    """`classify`: one of several exclusive classes. `questions`: yes or no to each category (THINGS' 27 are nested).
    `retrieve`: the vector of the image that was seen, to find it among images that were never trained."""
    table: str = ""
    """`retrieve`: an embedding table's folder under `paths.embeddings`; empty: the one that `embed.*` describes."""
    layers: Names = ()
    """`retrieve`: layers of the table to predict; empty: all."""
    weights: Literal["equal", "learned"] = "equal"
    """`retrieve`: what several layers count for."""
    scaling: Literal["standardise", "centre", "whiten"] = "standardise"
    """`retrieve`: of the vectors, fitted on training images: each number to one standard deviation, the mean taken off
    alone, or principal components to one standard deviation."""
    components: Annotated[int, Field(ge=0)] = 0
    """`retrieve`: principal components of the training images' vectors that are kept a layer; 0: no such step."""
    projection: Annotated[int, Field(ge=0)] = 64
    """`retrieve` with `loss.name` `info_nce` or `siglip`: numbers of a linear map of the images' vectors that is
    learned together with the decoder, and begins at what responses depend on most (an encoding model's); 0: none."""

    @model_validator(mode="after")
    def _retrieval_only(self) -> Self:
        defaults = type(self).model_fields
        given = [name for name, value in self if name != "task" and value != defaults[name].default]
        if self.task != "retrieve" and given:
            raise ValueError(f"{given[0]} is a setting of task = 'retrieve', not of {self.task!r}")
        if self.scaling == "whiten" and not self.components:
            raise ValueError("scaling = 'whiten' needs components, the number of principal components to keep")
        return self


class LossSettings(Settings):
    """How far a predicted vector is from an image's (`target.task = "retrieve"`)."""

    name: Literal["info_nce", "siglip", "cosine", "squared"] = "info_nce"
    """`info_nce`: find each trial's image among the batch's, and each image's trial; `siglip`: each pair a yes/no
    question; `cosine`, `squared`: distance from the own image's vector."""
    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.07
    """Start of the learned temperature of `info_nce` and `siglip`, which is held between 0.01 and 1."""
    mmd_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps at the beginning in which only the distributions of predictions and vectors are brought
    together (maximum mean discrepancy)."""


class SplitSettings(Settings):
    """Who trains, who chooses, who tests."""

    method: Literal["concepts", "blocks"] = "concepts"
    """Held-out concepts in held-out sequences, or cross-validation over contiguous stretches."""
    test: Literal["held_out", "dataset"] = "held_out"
    """`concepts`: test on held-out concepts of the main part, or on the data set's own test images."""
    validation_concepts: Fraction = 0.15
    """Share of each class's concepts that validate."""
    test_concepts: Fraction = 0.15
    """Share of each class's concepts that test (`held_out`)."""
    validation_sequences: NoneOrFraction = 0.15
    """Share of a person's sequences that validate; 0: held-out concepts wherever they were shown, for windows that
    do not overlap (MEG)."""
    test_sequences: NoneOrFraction = 0.15
    """Share of a person's sequences that test (`held_out`); 0 likewise."""
    unit: Literal["block", "run", "session"] = "block"
    """`blocks`: what a fold consists of."""
    folds: Annotated[int, Field(ge=3)] = 6
    """`blocks`: contiguous folds a person; each is tested once, the next one validates."""
    per_person: bool = False
    """One decoder a person, from that person's trials alone, instead of one for all with weights of each."""
    new_people: Names = ()
    """`concepts`: people whom training never meets; they alone are tested, with the weights that all people share, and
    again with scalers from their own unlabelled trials."""
    adapt_trials: tuple[Count, ...] = ()
    """`new_people`: also after weights of their own were trained on so many labelled trials of theirs, none of which
    shares an image, a concept or signal with the test part; beside decoders of these trials alone."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed, other concepts and sequences held out."""

    @model_validator(mode="after")
    def _new(self) -> Self:
        if self.new_people and (self.method != "concepts" or self.per_person):
            raise ValueError("new_people needs method = 'concepts' and one decoder for all (per_person = false)")
        if self.adapt_trials and not self.new_people:
            raise ValueError("adapt_trials are those of new_people; name some")
        return self


class EmbedSettings(Settings):
    """Images -> embedding table: the targets of retrieval and reconstruction."""

    encoder: Literal["gist", "darknet", "transformers"] = "gist"
    """`gist`: oriented energy and colour, without weights; `darknet`: a Tiny Darknet; `transformers`: CLIP, SigLIP,
    DINOv2, ViT, ... (`pip install 'synapse-diffusion[encoders]'`)."""
    weights: str = ""
    """`darknet`: a safetensors file. `transformers`: a name on huggingface.co, or a folder of `save_pretrained`."""
    layers: Names = ()
    """`gist`: gist, colour, both. `darknet`: conv0 .. conv15, logits. `transformers`: block_0 .. block_n, last (or -1),
    pooled, projection. Empty: the usual ones."""
    token: Literal["auto", "cls", "mean", "max", "grid"] = "auto"
    """How a layer of patches or pixels becomes one vector: class token, mean, maximum, means over a grid of 4 x 4 cells
    (16 times the numbers); `auto`: the class token where there is one, else the mean."""
    blur: tuple[Positive, ...] = ()
    """Each layer also of the image blurred by a Gaussian of these standard deviations, in pixels of the encoder's
    input; named e.g. `block_12@blur4`."""
    batch: Count = 32
    """Images at once; changes vectors by rounding only, so it has no part in a table's name."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the encoder; vectors are stored as float32."""

    def about(self) -> dict[str, Any]:
        """What a table says of the settings that made it; of weights the last part of their path or name."""
        return {
            "kind": self.encoder, "token": self.token, "precision": self.precision, "weights": Path(self.weights).name,
            "layers": {"of": sorted(self.layers), "blur": sorted(self.blur)},
        }  # fmt: skip

    @model_validator(mode="after")
    def _choices(self) -> Self:
        if (self.encoder == "gist") != (not self.weights):
            missing = "needs weights" if not self.weights else f"has no weights, but weights = {self.weights!r}"
            raise ValueError(f"encoder = {self.encoder!r} {missing}")
        if self.encoder == "gist" and (self.token != "auto" or self.precision != "float32"):
            raise ValueError("encoder = 'gist' knows no token and no precision; leave them out")
        for name, values in (("layers", self.layers), ("blur", self.blur)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names one twice: {', '.join(map(str, values))}")
        return self


class ModelSettings(Settings):
    """The decoder."""

    name: str = "compact"
    """`compact`: a whitened linear path and a spatial-temporal convolution, with weights of each person's own;
    `eegnet`; `tsconv`: NICE's; `atm`: attention over sensors before that; `brain_module`: attention from sensor
    positions, dilated convolutions. Published learning rates of the last four: 2e-4 to 1e-3. Or one of
    your own, by the name that `register_decoder` gave it."""
    components: Annotated[int, Field(ge=0)] = 0
    """Spatial components; `eegnet`: of each temporal filter; 0: the decoder's own (16, 2, 40, 40, 270)."""
    width: Annotated[int, Field(ge=0)] = 0
    """Temporal filters; `brain_module`: channels of its blocks; 0: the decoder's own (32, 8, 40, 40, 320)."""
    layers: Annotated[int, Field(ge=0)] = 0
    """`atm`: layers of attention; `brain_module`: blocks of convolutions; 0: the published 1 and 5."""
    dropout: Annotated[Annotated[float, Field(ge=0, lt=1)] | None, BeforeValidator(none_word)] = None
    """Share of the features left out in training; `none`: the decoder's own (0.7, 0.5, 0.5, 0.5, 0)."""
    sensor_dropout: Annotated[Annotated[float, Field(ge=0, lt=1)] | None, BeforeValidator(none_word)] = None
    """`brain_module`: sensors this near a random place are left out in training, as a share of the flattened head's
    side; `none`: the published 0.2."""
    projector: Literal["linear", "residual"] = "linear"
    """`tsconv`, `atm`, `brain_module`: from features to outputs by one layer (classes), or by NICE's residual layers
    and a normalisation of the output (embeddings)."""

    fusion: Literal["precision", "early"] = "precision"
    """`train fusion`: a decoder for each modality whose outputs are summed, weighted by how sure each is of the trial;
    or one decoder of all sensors together (equal rates and windows)."""

    def given(self) -> dict[str, Any]:
        """What is not left to the decoder."""
        defaults = type(self).model_fields
        own = ("name", "fusion")
        return {name: value for name, value in self if name not in own and value != defaults[name].default}

    @field_validator("name")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in DECODERS:
            raise ValueError(f"no such decoder; one of {', '.join(DECODERS)}, or your own after register_decoder")
        return name

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.given():
            if name not in DECODERS[self.name]:
                having = [decoder for decoder, settings in DECODERS.items() if name in settings]
                raise ValueError(f"{name} is a setting of {', '.join(having)}, not of {self.name}")
        return self


class TrainSettings(Settings):
    """The training loop."""

    steps: Annotated[int, Field(ge=0)] = 0
    """Steps of the optimizer at most; 0: as many as 20 passes over the training trials take, at least 800."""
    checks: Count = 20
    """How often in these steps validation is looked at and a checkpoint written."""
    patience: Count = 10
    """Checks without a better validation loss before training stops."""
    batch: Annotated[int, Field(ge=0)] = 0
    """Trials a step; 0: about a 32nd of the training trials, a power of two from 64 to 256."""
    learning_rate: Positive = 3e-3
    """Largest rate of the schedule (AdamW; warm-up, then half a cosine)."""
    weight_decay: NotNegative = 0.05
    """Of all weights but the linear path's."""
    linear_prior: Annotated[NotNegative | None, BeforeValidator(none_word)] = None
    """`compact`: strength of the normal prior that holds the linear path's weights where they began; `none`: 3, and
    1000 where images are retrieved, which begins at ridge regression."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """`classify`: share of the target spread over all classes."""
    repeats: Count = 1
    """Most trials of one image and person that are averaged into a training trial; how many is drawn anew each time."""
    repeat_weights: Literal["equal", "random"] = "equal"
    """What each of them counts for: the same, or a random share of one (uniform over all shares that add up to one)
    that is drawn anew each time, so that two repeats make any number of training trials."""
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """`train fusion`: share of the training trials whose fused output lacks one modality."""
    time_shift_s: NotNegative = 0.0
    """Largest random shift of a training epoch, in s."""
    noise: NotNegative = 0.0
    """Standard deviation of noise added to scaled training epochs."""
    channel_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the sensors set to zero in each training epoch."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay a step of the averaged weights that are validated and kept; 0: none."""
    baselines: bool = True
    """Also fit what the decoder is compared with in closed form: shrinkage LDA, or ridge and an encoding model."""
    members: Count = 1
    """Networks of different seeds whose log probabilities are averaged."""
    refit: bool = True
    """After all choices are made on validation, train anew on everything that shares nothing with the test part,
    for as many steps as were best; test is scored with that. Twice the time, a quarter more data."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward pass."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed, other weights to begin with and another order of trials."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.repeat_weights == "random" and self.repeats < 2:
            raise ValueError(f"repeat_weights = 'random' needs repeats of 2 or more, not {self.repeats}")
        return self


class EvaluateSettings(Settings):
    """Scores and how sure they are."""

    k_repeats: tuple[Annotated[int, Field(ge=0)], ...] = (1, 0)
    """Repeats of one test image averaged before decoding; 0: all."""
    permutations: Annotated[int, Field(ge=0)] = 2000
    """Random exchanges behind each p; 0: no p."""
    bootstrap: Annotated[int, Field(ge=0)] = 2000
    """Draws behind each interval; 0: no interval."""
    gallery: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    """`retrieve`: images among which the one seen is to be found; 0: the test images. A larger number adds images of
    test concepts' other pictures, then of concepts that were trained."""
    controls: tuple[Literal["prestimulus", "noise", "mean", "wrong_person", "image_features"], ...] = (
        "prestimulus", "noise", "mean", "wrong_person", "image_features",
    )  # fmt: skip
    """What must be at chance: the linear baseline trained and tested before the picture (`prestimulus`), noise as
    input, one prediction for all (`mean`); at or above it, another person's weights (`wrong_person`); and, for
    categories, how far pictures alone are told apart by oriented energy and colour (`image_features`, where `embed` has
    made a table with `embed.encoder=gist`): what a decoder of nothing but low-level vision could reach."""
    dynamics: bool = False
    """Also what is decoded when: time-resolved scores, temporal generalisation, similarity structure, reliability."""
    maps: bool = True
    """Also which sensors and latencies the decoder lives on: their contributions to the fall of the validation loss."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of permutations and draws."""
