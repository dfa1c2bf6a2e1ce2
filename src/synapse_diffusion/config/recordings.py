"""Settings of recordings: where they are, what they hold, how they are simulated and converted."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from synapse_diffusion.config.base import (
    Count,
    FolderName,
    Interval,
    Names,
    NotNegative,
    Positive,
    Settings,
    none_word,
    one_or_many,
)

LOWEST_HIGHPASS_HZ: Final = 0.01
NOTCH_BAND_HZ: Final = 0.5  # of a notch filter's transitions


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
    keep: dict[str, Names] = Field(default={})
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
    def _of_pairs(self) -> Self:
        given = [name for name in ("sessions", "tasks", "runs") if getattr(self, name)]
        if self.modality == "comb" and given:
            raise ValueError(f"modality = 'comb' pairs whole recordings: leave out {', '.join(given)}")
        return self

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
    reference: Annotated[tuple[str, ...], BeforeValidator(one_or_many)] = ("average",)
    """`["average"]`, `["none"]`, or names of electrodes whose mean is taken off."""
    restore_reference: bool = False
    """Add the recording's own reference electrode (EEGReference) as a channel before re-referencing."""
    compensation: Annotated[Literal[0, 1, 2, 3] | None, BeforeValidator(none_word)] = None
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
