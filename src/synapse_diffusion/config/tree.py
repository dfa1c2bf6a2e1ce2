"""The settings tree: every key, its type, its default and what it does."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _none_word(value: object) -> object:
    return None if value == "none" else value


def _one_or_many(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return (str(value),)
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",")) if value else ()
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
"""Several names; `--set data.people=01,03` is read like `["01", "03"]`, and 49 like `["49"]`."""
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
"""One plain folder name: nothing outside `paths.stores` can be meant by it."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
NoneOrFraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Interval = Annotated[tuple[float, float] | None, BeforeValidator(_none_word)]


DECODERS_WITH: Final = {
    "layers": ("atm", "brain_module"),
    "sensor_dropout": ("brain_module",),
    "projector": ("tsconv", "atm", "brain_module"),
}
"""Settings of the branch `model` that not every decoder has."""


PICTURES: Final = ("generator", "prior", "reconstruct")
"""Branches that change no decoder."""
LOWEST_HIGHPASS_HZ: Final = 0.01


class Settings(BaseModel):
    """Base of all branches: frozen, unknown keys refused, numbers not read from text."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class PathSettings(Settings):
    """Where things are; relative to the folder in which the command runs. Not part of the digest."""

    bids: str = "data/bids"
    """BIDS data set: read by `convert`, written by `simulate`."""
    stores: str = "stores"
    """Signal stores, one folder a recording."""
    runs: str = "runs"
    """Runs, one folder each."""
    images: str = ""
    """Folder of stimulus images, in folders by concept: read by `embed`; empty: `stimuli` in `bids`."""
    embeddings: str = "embeddings"
    """Embedding tables of images, one folder each."""
    things: str = ""
    """Folder with THINGS' `things_concepts.tsv` and `category_mat_manual.tsv`; empty: `bids`."""
    stimuli: str = ""
    """`simulate`: folder of images to show instead of drawn ones, with `concepts.tsv` (file, concept, category, and if
    need be is_test: 1 or 0)."""


class EventColumns(Settings):
    """Which columns of events.tsv hold what; an empty name: the data set does not say."""

    image: str = ""
    """The image's file name or path ("/" or "\\\\"); its stem is the image id."""
    concept: str = ""
    """The concept; empty: the folder of the image's path."""
    label: str = ""
    """The data set's own class."""
    image_number: str = ""
    """THINGS' image number, 1 to 26107 (ds004212: `value`); names image and concept by `paths.things`."""
    concept_number: str = ""
    """1-based concept number (ds004212: `things_category_nr`); must agree with `image_number`."""
    is_test: str = ""
    """Column with 1 where one of the repeated test images is shown; or `column=value`."""
    is_target: str = ""
    """Column with 1 where the person was to respond; or `column=value`."""
    is_catch: str = ""
    """Column with 1 for catch trials, which are never decoded; or `column=value`."""
    keep_catch: bool = False
    """Store catch trials too; they are counted in the manifest either way."""
    sequence: str = ""
    """Number of the RSVP sequence or block."""
    keep: dict[str, Names] = {}
    """Only rows whose column holds one of these values, e.g. `keep = {trial_type = ["face", "house"]}`."""
    onset_unit: Literal["auto", "seconds", "samples"] = "auto"
    """`auto` decides from evidence and refuses where the evidence does not decide."""
    duration_unit: Literal["seconds", "milliseconds"] = "seconds"
    """Unit of `duration`; ds003825 gives milliseconds."""
    onset_distance_s: Interval = None
    """Shortest and longest distance in s from onset to onset that the design allows; what lies outside is said.
    `none`: the recording's own median, give or take a quarter."""


class DataSettings(Settings):
    """Which recordings of which data set."""

    modality: Literal["eeg", "meg", "comb"] = "eeg"
    """What is recorded, and what `simulate` writes; `comb`: an index over an EEG and a MEG data set that are
    converted already (`pairs`)."""
    format: Literal["bids", "eeg2"] = "bids"
    """How the files are laid out: `bids`, or as the numpy files of THINGS-EEG2 (raw, or its preprocessed epochs), with
    `image_metadata.npy` in `paths.bids`, `folder` or `paths.things`."""
    name: FolderName = "study"
    """Name of the data set: a folder under `paths.stores`."""
    folder: str = ""
    """Folder under `paths.bids` with the recordings, e.g. `derivatives/eeglab`; empty: the raw data."""
    people: Names = ()
    """Only these people ("02", not 2); empty: all."""
    sessions: Names = ()
    """Only these sessions; empty: all."""
    tasks: Names = ()
    """Only these tasks; empty: all."""
    runs: Names = ()
    """Only these runs; empty: all."""
    include_excluded: bool = False
    """Also take people whom `participants.tsv` marks `exclude = 1`."""
    events: EventColumns = EventColumns()

    @model_validator(mode="after")
    def _of_eeg2(self) -> Self:
        if self.format != "eeg2":
            return self
        if self.modality != "eeg":
            raise ValueError(f"format = 'eeg2' is EEG, but modality = {self.modality!r}")
        given = [name for name, value in self.events if value != EventColumns.model_fields[name].default]
        if tables := [f"events.{name}" for name in given if name not in ("keep_catch", "onset_distance_s")]:
            raise ValueError(f"format = 'eeg2' has no event tables: leave out {', '.join(tables)}")
        return self


class PairSettings(Settings):
    """The combined set: EEG and MEG trials of the same image, from different people."""

    eeg: str = ""
    """Name of the EEG data set under `paths.stores`."""
    meg: str = ""
    """Name of the MEG data set under `paths.stores`."""
    by: Literal["image", "concept"] = "image"
    """What two trials share to be a pair."""


class SimulateSettings(Settings):
    """A study with known truth, written as a BIDS data set."""

    preset: Literal["realistic", "demo"] = "realistic"
    """Signal-to-noise ratio: like published recordings, or better than life for a short demonstration."""
    generator: Literal["stages", "network"] = "stages"
    """The brain that answers: `stages` has ideal observers; `network`, random features, oscillating courses and another
    noise, has none, and is there to try on what was chosen elsewhere."""
    people: Count = 2
    """People, each with an anatomy and a gain of their own."""
    categories: Names = ()
    """Which categories of the drawn objects; empty: all twelve."""
    exemplars: Count = 24
    """Pictures of each concept in the main part."""
    main_repeats: Count = 3
    """How often each of them is shown."""
    test_concepts: Annotated[int, Field(ge=0)] = 2
    """Concepts of each category that have test pictures. Pictures from a folder: all concepts have them, but where
    the folder's table has a column `is_test`."""
    test_images: Count = 2
    """Test pictures of each of them."""
    test_repeats: Count = 12
    """How often each of those is shown."""
    sequence_length: Count = 120
    """EEG: pictures in one RSVP sequence."""
    onset_distance_s: Positive = 0.1
    """From one picture's onset to the next, in s."""
    onset_jitter_s: NotNegative = 0.0
    """MEG: most by which that distance is longer or shorter, in s."""
    catch_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """MEG: share of the trials that show an artificial picture, to which the person responds."""
    sessions: Count = 1
    """MEG: sessions over which the main pictures are dealt; each shows the test pictures."""
    runs: Count = 1
    """MEG: recordings in one session."""
    duration_s: Positive = 0.05
    """How long a picture is shown, in s."""
    channels: Annotated[int, Field(ge=8, le=272)] = 32
    """EEG: electrodes of the 10-05 system (up to 128), the back of the head first. MEG: gradiometers, spread evenly."""
    sfreq: Positive = 500.0
    """Sampling rate in Hz."""
    mains_hz: Positive = 50.0
    """Frequency of the mains hum."""
    picture_size: Annotated[int, Field(ge=16, le=1024)] = 96
    """Pixels a side."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed, another study."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.onset_jitter_s >= self.onset_distance_s:
            raise ValueError(
                f"onset_jitter_s = {self.onset_jitter_s} must be below onset_distance_s = {self.onset_distance_s}"
            )
        return self


class ConvertSettings(Settings):
    """Raw recording -> continuous stored signal."""

    highpass_hz: NotNegative = 0.1
    """0: none."""
    lowpass_hz: NotNegative = 100.0
    """0: none but the resampler's own."""
    notch_hz: tuple[Positive, ...] = ()
    """Mains frequency and harmonics to take out, in Hz; empty: none."""
    sfreq: Positive = 250.0
    """Stored sampling rate in Hz."""
    reference: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = ("average",)
    """`["average"]`, `["none"]`, or names of electrodes whose mean is taken off."""
    restore_reference: bool = False
    """Add the recording's own reference electrode (EEGReference) as a channel before re-referencing."""
    compensation: Annotated[Literal[0, 1, 2, 3] | None, BeforeValidator(_none_word)] = None
    """Order of CTF's gradient compensation; `none`: as recorded."""
    drop_channels: Names = ()
    """Sensors that are not stored, e.g. one known to be broken (THINGS-MEG: `MRO11`)."""
    only_channels: Names = ()
    """Store these channels alone, whatever their type, as they are (no reference, none judged bad): EOG, or gaze and
    pupil (THINGS-MEG: `UADC009,UADC010,UADC013`), under a `data.name` of their own. The same recipe, trained and
    evaluated on them, says what the eyes alone tell."""
    trigger_channel: str = ""
    """Channel with the trigger or photodiode: its rising edges are compared with the onsets, and the delay said."""
    bad_channels: Literal["interpolate", "zero", "keep"] = "interpolate"
    """What happens to channels that are marked or found bad; `zero` where positions are unknown."""
    find_bad_channels: bool = True
    """Look for flat, noisy and uncorrelated channels beside those that the data set marks."""
    noisy_z: Positive = 6.0
    """Robust z of a channel's log standard deviation above which it is noisy."""
    min_correlation: NotNegative = 0.3
    """A channel whose best correlation with any other stays below is bad (16 channels or more)."""
    dropout_s: Positive = 0.05
    """All channels constant or not a number for this long, in s: a dropout, bridged before filtering."""
    ica: Literal["none", "eog_ecg", "iclabel"] = "none"
    """Take out independent components: those that go with the EOG and ECG (MNE's scores), or those that ICLabel
    (EEG; needs mne-icalabel) calls an artefact."""
    ica_components: Annotated[int, Field(ge=2)] = 20
    """Components to look at."""
    ica_seed: Annotated[int, Field(ge=0)] = 0
    """Of the decomposition's start."""

    @model_validator(mode="after")
    def _bands(self) -> Self:
        if 0 < self.highpass_hz < LOWEST_HIGHPASS_HZ:
            raise ValueError(
                f"highpass_hz = {self.highpass_hz} needs a filter of {3.3 / self.highpass_hz:.0f} s; take 0 (none) or "
                f"{LOWEST_HIGHPASS_HZ} and more"
            )
        if self.lowpass_hz and self.lowpass_hz <= self.highpass_hz:
            raise ValueError(f"lowpass_hz = {self.lowpass_hz} must be above highpass_hz = {self.highpass_hz}")
        if self.lowpass_hz > self.sfreq / 2:
            raise ValueError(f"lowpass_hz = {self.lowpass_hz} is above half of sfreq = {self.sfreq}")
        if self.only_channels and (self.ica != "none" or self.drop_channels):
            raise ValueError("only_channels are stored as they are: ica must be 'none', and drop_channels empty")
        if any(not 2.0 < hz < self.sfreq / 2 - 2.0 for hz in self.notch_hz):
            raise ValueError(f"notch_hz = {list(self.notch_hz)} must lie 2 Hz inside 0 .. {self.sfreq / 2:g} Hz")
        return self


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

    name: Literal["compact", "eegnet", "tsconv", "atm", "brain_module"] = "compact"
    """`compact`: a whitened linear path and a spatial-temporal convolution, with weights of each person's own;
    `eegnet`; `tsconv`: NICE's; `atm`: attention over sensors before that; `brain_module`: attention from sensor
    positions, dilated convolutions. Published learning rates of the last four: 2e-4 to 1e-3."""
    components: Annotated[int, Field(ge=0)] = 0
    """Spatial components; `eegnet`: of each temporal filter; 0: the decoder's own (16, 2, 40, 40, 270)."""
    width: Annotated[int, Field(ge=0)] = 0
    """Temporal filters; `brain_module`: channels of its blocks; 0: the decoder's own (32, 8, 40, 40, 320)."""
    layers: Annotated[int, Field(ge=0)] = 0
    """`atm`: layers of attention; `brain_module`: blocks of convolutions; 0: the published 1 and 5."""
    dropout: Annotated[Annotated[float, Field(ge=0, lt=1)] | None, BeforeValidator(_none_word)] = None
    """Share of the features left out in training; `none`: the decoder's own (0.7, 0.5, 0.5, 0.5, 0)."""
    sensor_dropout: Annotated[Annotated[float, Field(ge=0, lt=1)] | None, BeforeValidator(_none_word)] = None
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

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.given():
            if self.name not in DECODERS_WITH.get(name, (self.name,)):
                raise ValueError(f"{name} is a setting of {', '.join(DECODERS_WITH[name])}, not of {self.name}")
        return self


class TrainSettings(Settings):
    """The training loop."""

    steps: Count = 800
    """Steps of the optimizer at most."""
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
    linear_prior: Annotated[NotNegative | None, BeforeValidator(_none_word)] = None
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
    seed: Annotated[int, Field(ge=0)] = 0
    """Of permutations and draws."""


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


class ReconstructSettings(Settings):
    """`reconstruct`: from test trials to pictures, and how good these are."""

    features: Literal["signal", "decoder"] = "signal"
    """What conditions are predicted from, by ridge regression fitted on training trials: time-binned signals, or the
    decoder's outputs (of training trials, where it can, those of the linear path that left their concept out)."""
    prior: Literal["regression", "flow"] = "regression"
    """What is drawn from: the regression's expectation, or samples of a rectified flow given that (branch `prior`),
    trained on training trials that the regression left out. Controls go the same way."""
    k_repeats: tuple[Annotated[int, Field(ge=0)], ...] = (1, 0)
    """Repeats of a test image averaged before it is reconstructed; 0: all."""
    samples: Count = 2
    """Pictures of each."""
    controls: tuple[Literal["shuffled", "none", "other_person", "true"], ...] = (
        "shuffled", "none", "other_person", "true",
    )  # fmt: skip
    """What stands beside it, of the same seeds: another trial's signal, no brain, this person's signal under another
    person's weights, and the true vectors (the ceiling)."""
    sampler: Literal["auto", "ddim", "dpm_solver_pp_2m", "euler_flow", "heun_flow"] = "auto"
    """`auto`: `heun_flow` for a flow, `dpm_solver_pp_2m` for `v`."""
    sampling_steps: Count = 16
    """Of the sampler."""
    guidance: NotNegative = 1.5
    """How far away from unconditional pictures (classifier-free guidance); 1: none."""
    darknet: str = ""
    """Tiny Darknet's safetensors file, for columns of two-way identification by its layers."""
    clip: str = ""
    """CLIP ViT-L/14, a folder or a name on huggingface.co, for its column."""
    networks: str = ""
    """Folder of torchvision's published weights (AlexNet, Inception, ...), for their columns."""
    batch: Count = 64
    """Pictures drawn at once."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the pictures' noise: one seed, image and sample, one noise, whatever the condition."""


class ExecutionSettings(Settings):
    """How fast, not what: left out of the digest."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Recordings converted side by side; 0: what processors and memory allow."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the mathematics in training and evaluation; 0: PyTorch's default."""
    processes: Annotated[int, Field(ge=0)] = 0
    """Processes that train one decoder together; 0: one for each GPU, one on a CPU. torchrun's count goes first."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """Several processes: each holds all weights, or a share of them (FSDP2)."""
    compile: bool = False
    """Compile the decoder (torch.compile): minutes once, then faster steps on a GPU."""
    checkpoint_minutes: NotNegative = 5.0
    """A checkpoint at the next check after so many minutes, and on SIGTERM and SIGUSR1 at once; 0: at every check."""
    verify_stores: bool = True
    """Check each store's signal against its checksum before use."""


class Recipe(Settings):
    """One experiment."""

    paths: PathSettings = PathSettings()
    data: DataSettings = DataSettings()
    pairs: PairSettings = PairSettings()
    simulate: SimulateSettings = SimulateSettings()
    convert: ConvertSettings = ConvertSettings()
    view: ViewSettings = ViewSettings()
    split: SplitSettings = SplitSettings()
    labels: LabelSettings = LabelSettings()
    embed: EmbedSettings = EmbedSettings()
    target: TargetSettings = TargetSettings()
    loss: LossSettings = LossSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    generator: GeneratorSettings = GeneratorSettings()
    prior: PriorSettings = PriorSettings()
    reconstruct: ReconstructSettings = ReconstructSettings()
    execution: ExecutionSettings = ExecutionSettings()

    def digest(self, *branches: str) -> str:
        """Hex digest of what a decoder's result depends on (of `branches` only, if given)."""
        values = self.model_dump(mode="json", exclude={"paths", "execution", *(PICTURES if not branches else ())})
        return digest_of({name: values[name] for name in branches} if branches else values)


def digest_of(values: dict[str, Any]) -> str:
    """SHA-256 of a tree of plain values, independent of key order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def conversion_settings(recipe: Recipe) -> dict[str, Any]:
    """What a signal store depends on beside its sources."""
    convert = recipe.convert.model_dump(mode="json")
    if not convert["only_channels"]:  # stores that were made before there was such a setting stay valid
        del convert["only_channels"]
    return {
        "convert": convert,
        "events": recipe.data.events.model_dump(mode="json"),
    }
