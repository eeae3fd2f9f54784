"""The fields of a recipe that name data and its augmentation."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from processing_mac.dataset_mac import MANIFESTS


# Matches the end of a shard's path or address, which may be a pattern, and the query that follows in an address.
SHARD = re.compile(r"\.tar(\.(gz|bz2|xz|zst))?[*}]*([?#].*)?$")
FORMATS = ("manifest", "audiocaps", "clotho", "openaqa", "dataset", "webdataset")
SCENES = ("silence", "noise")  # scenes that a source may be marked with when it holds no sound of anything
PARAPHRASED = 0.5  # of the captions that have a paraphrase, where the recipe does not say
TWO = ("join_probability", "overlay_probability", "background_probability")  # fields that join two recordings


class Help(str):
    """A field's help text with its marks; `Recipe` explains the marks."""

    marks: tuple[str, ...]

    def __new__(cls, text: str, *marks: str) -> "Help":
        made = super().__new__(cls, text)
        made.marks = marks
        return made


@dataclass
class DataRecipe:
    """
    Recordings, their texts, and how they are varied from epoch to epoch.

    `train_data` and `eval_data` are a path, a mapping with the fields of `Source`, or a list of those: a mixture.
    """

    train_data: str | dict | list = field(
        metadata={
            "help": "What to learn from: a path, a mapping (format, path, name, split, audio_root, columns, weight, "
            f"prompt, scene) or a list of mappings. Formats: {', '.join(FORMATS)}."
        },
    )
    eval_data: str | dict | list | None = field(
        default=None, metadata={"help": "What to validate on, written like `train_data`."}
    )
    audio_root: str | dict | None = field(
        default=None,
        metadata={"help": "Folder that audio paths are relative to, the manifest's by default; see `Source`."},
    )
    prompt: str | None = field(
        default=None,
        metadata={"help": "The prompt that captions answer where no row or source has its own; the model's default."},
    )
    skip_bad_audio: bool = field(
        default=False,
        metadata={"help": "Leave out recordings that are missing or unreadable and count them, instead of stopping."},
    )
    check_samples: int = field(
        default=100, metadata={"help": Help("Recordings of each source to decode before training starts.", "free")}
    )
    cache_features: str | None = field(
        default=None,
        metadata={"help": Help("Folder to keep log-mels in; without one they are computed when needed.", "free")},
    )
    max_windows: int | None = field(
        default=None,
        metadata={"help": "Most windows (10.24 s) of an example; of a longer one, an excerpt. All by default."},
    )
    spec_augment: bool = field(
        default=False, metadata={"help": "Mask 2 stripes of time (to 0.64 s) and 2 of frequency (to 8 bins) a window."}
    )
    gain_db: float = field(default=0.0, metadata={"help": "Change the level by up to so many dB up or down."})
    tilt_db: float = field(
        default=0.0, metadata={"help": "Tilt the spectrum by up to so many dB at its ends: another microphone."}
    )
    tempo: float = field(
        default=0.0, metadata={"help": "Play it faster or slower, by up to this share: 0.25 is up to 1.25 times."}
    )
    pitch: float = field(default=0.0, metadata={"help": "Shift it up or down the mel scale, by up to this share."})
    time_shift: bool = field(
        default=False, metadata={"help": "Start the recording elsewhere and put its beginning at its end."}
    )
    min_excerpt: float = field(
        default=1.0, metadata={"help": "Cut half of the recordings, to between this share of them and the whole."}
    )
    repeat_probability: float = field(
        default=0.0, metadata={"help": "How often a recording shorter than a window is repeated until that is full."}
    )
    join_probability: float = field(
        default=0.0, metadata={"help": "How often a second recording follows the first, and its caption too."}
    )
    overlay_probability: float = field(
        default=0.0, metadata={"help": "How often a second recording sounds at the same time; both captions are kept."}
    )
    background_probability: float = field(
        default=0.0,
        metadata={"help": "How often a second recording is heard faintly, 10 to 25 dB below, and goes untold."},
    )
    paraphrases: str | None = field(
        default=None,
        metadata={"help": "File of other wordings of the captions, as `mac-paraphrase` writes it; never references."},
    )
    paraphrase_probability: float | None = field(
        default=None,
        metadata={"help": f"How often one of its paraphrases takes the place of a caption; {PARAPHRASED} by default."},
    )

    def __post_init__(self) -> None:
        for name in ("repeat_probability", *TWO):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; expected 0 to 1.")
        if self.share_of_two > 1:
            raise ValueError(f"{', '.join(f'`{name}`' for name in TWO)} add up to more than 1.")
        if not 0 < self.min_excerpt <= 1:
            raise ValueError(f"`min_excerpt` is {self.min_excerpt}; expected a share, above 0 and up to 1.")
        if self.max_windows is not None and self.max_windows < 1:
            raise ValueError(f"`max_windows` is {self.max_windows}; expected at least 1.")

        if self.paraphrases is None and self.paraphrase_probability is not None:
            raise ValueError("`paraphrase_probability` is given, but no file of `paraphrases`.")
        if not 0 < self.share_paraphrased <= 1:
            share = self.share_paraphrased
            raise ValueError(f"`paraphrase_probability` is {share}; expected a share, above 0 and up to 1.")

    @property
    def share_paraphrased(self) -> float:
        """Give the share of the captions with paraphrases that one of these replaces, above 0 and up to 1."""
        return PARAPHRASED if self.paraphrase_probability is None else self.paraphrase_probability

    @property
    def share_of_two(self) -> float:
        """Give the share of the examples that are made of two recordings, from 0 to 1."""
        return sum(getattr(self, name) for name in TWO)


@dataclass(frozen=True)
class Source:
    """
    One set of recordings.

    Args:
        path: Path of a manifest or table; folder, data file or Hub id of a dataset; patterns of WebDataset shards.
        format: One of `FORMATS`; if not given, the path tells a manifest, shards or a dataset.
        name: Name of the configuration to use of a dataset that has several.
        split: Split of a dataset; to learn from, "train" by default; to validate on, needed if there are several.
        audio_root: Folder that audio paths are relative to. For OpenAQA also a mapping from its `dataset` to a folder.
        columns: Names of the source's columns for `audio`, `caption`, `phrase`, `source` and `prompt`.
        weight: Number of times that an epoch goes through the source: 2 is twice, 0.5 another half each epoch.
        prompt: Prompt of all clips that bring none.
        scene: One of `SCENES` if the clips are no sound of anything: they are no part of a scene of two, and silence
            stays as loud as it is.
    """

    path: Any
    format: str = ""
    name: str | None = None
    split: str | None = None
    audio_root: Any = None
    columns: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0
    prompt: str | None = None
    scene: str | None = None

    def __post_init__(self) -> None:
        if not self.format:
            object.__setattr__(self, "format", guess_format(self.path))
        if self.format not in FORMATS:
            raise ValueError(f"{self.path}: no format {self.format!r}.{suggest(self.format, FORMATS)}")
        if self.format != "webdataset" and not isinstance(self.path, str):
            raise ValueError(f"{self.path}: expected one path; a mixture is a list of mappings.")
        if self.scene is not None and self.scene not in SCENES:
            raise ValueError(f"{self.path}: `scene` is {self.scene!r}; expected {' or '.join(map(repr, SCENES))}.")
        if self.weight <= 0:
            raise ValueError(f"{self.path}: `weight` is {self.weight}; expected more than 0.")


def guess_format(path: Any) -> str:
    """Take a table for a manifest, a .tar for a shard, and anything else for a dataset."""
    first = str(path[0] if isinstance(path, list) else path)
    if Path(first).suffix in MANIFESTS:
        return "manifest"
    return "webdataset" if SHARD.search(first) else "dataset"


def parse_sources(value: Any, data: DataRecipe, split: str | None = "train") -> list[Source]:
    """
    The sources that `train_data` or `eval_data` names; what they leave out comes from the recipe.

    `split` is the split of datasets that name none; with None a dataset that has several must name one.

    Raises:
        ValueError: There is a field that does not exist (the nearest one is named), no path, or an unknown format.
    """
    if not value:
        return []
    known = [entry.name for entry in fields(Source)]
    sources = []
    for entry in value if isinstance(value, list) else [value]:
        settings = {"path": str(entry)} if isinstance(entry, (str, Path)) else entry
        if not isinstance(settings, Mapping) or "path" not in settings:
            raise ValueError(f"Expected a path, or a mapping with `path`, as a source of data; got {entry!r}.")
        for name in settings:
            if name not in known:
                raise ValueError(f"{settings['path']}: a source has no field {name!r}.{suggest(name, known)}")
        source = Source(**{"audio_root": data.audio_root, **settings})
        if source.format == "dataset" and source.split is None:
            source = replace(source, split=split)
        sources.append(source)
    return sources


def suggest(name: str, known: Any) -> str:
    """Make ' Did you mean …?' with the nearest known name, or with all of them if none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(known)}."
