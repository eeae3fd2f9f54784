"""
The test parts of published data sets: their tables as they are published, and their recordings in a folder.

A table is looked for in the folder of the recordings, below it and beside it. A recording may be in any sub-folder and
have any audio format. One of LTU's evaluation files, a JSON with `audio_id` and `output`, does as well as a table.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from evaluation_mac.datasets.label_lists import LabelList, letters, read_label_list
from evaluation_mac.datasets.recordings import Recordings
from evaluation_mac.datasets.tables import (
    Entry,
    is_ltu,
    read_audiocaps,
    read_audioset,
    read_clotho,
    read_dcase17,
    read_esc50,
    read_fsd50k,
    read_ltu,
    read_tut17,
    read_vggsound,
    read_vocalsound,
)
from processing_mac.dataset_mac import summarize


LTU_PROMPT = "Close-ended question: Write an audio caption describing the sound."


@dataclass(frozen=True)
class Published:
    """
    How a data set is published.

    Args:
        title: Name that messages and reports give it.
        home: Address where it can be had.
        tables: Names of the files with its test part, the likeliest first; none if the names of recordings say it all.
        read: Reads such a file.
        score: Score that LTU, GAMA and SAM publish for it.
        prompt: What LTU asks.
    """

    title: str
    home: str
    tables: tuple[str, ...]
    read: Callable[[Path], Iterator[Entry]]
    score: str
    prompt: str = LTU_PROMPT


@dataclass(frozen=True)
class Recording:
    """A recording of a data set with all that its rows say of it."""

    audio: str
    captions: tuple[str, ...]
    labels: tuple[str, ...]


DATASETS = {
    "audiocaps": Published(
        "AudioCaps", "https://github.com/cdjkim/audiocaps", ("test.csv", "audiocaps_test.csv"), read_audiocaps,
        "spice", "Close-ended question: Write an audio caption describing the sound, in AudioCaps style.",
    ),
    "clotho": Published(
        "Clotho", "https://zenodo.org/records/4783391", ("clotho_captions_evaluation.csv",), read_clotho, "spice",
        "Close-ended question: Create a caption for audio, in Clotho style.",
    ),
    "esc50": Published("ESC-50", "https://github.com/karolpiczak/ESC-50", ("esc50.csv",), read_esc50, "accuracy"),
    "vocalsound": Published(
        "VocalSound", "https://github.com/YuanGongND/vocalsound", ("te.json",), read_vocalsound, "accuracy"
    ),
    "tut17": Published(
        "TUT Acoustic Scenes 2017", "https://zenodo.org/records/1040168", ("evaluate.txt", "meta.txt"), read_tut17,
        "accuracy",
    ),
    "dcase17": Published(
        "DCASE 2017, task 4",
        "https://github.com/ankitshah009/Task-4-Large-scale-weakly-supervised-sound-event-detection-for-smart-cars",
        ("groundtruth_weak_label_evaluation_set.csv", "groundtruth_weak_label_testing_set.csv"), read_dcase17,
        "micro_f1",
    ),
    "beijing_opera": Published(
        "Beijing Opera", "https://zenodo.org/records/1285212", (), read_ltu, "accuracy"
    ),
    "fsd50k": Published("FSD50K", "https://zenodo.org/records/4060432", ("eval.csv",), read_fsd50k, "map"),
    "vggsound": Published(
        "VGGSound", "https://www.robots.ox.ac.uk/~vgg/data/vggsound/", ("vggsound.csv",), read_vggsound, "accuracy"
    ),
    "audioset": Published(
        "AudioSet", "https://research.google.com/audioset/download.html", ("eval_segments.csv",), read_audioset, "map"
    ),
}  # fmt: skip
CAPTIONED = ("audiocaps", "clotho")  # the others have labels


def find_dataset(name: str | None) -> str | None:
    """Give the key in `DATASETS` that a name means, however it is spelled; None if it means none."""
    return next((key for key in DATASETS if letters(key) == letters(name or "")), None)


def labels_of(dataset: str | None) -> LabelList | None:
    """Give the labels of a data set; None if it has captions, or is none of `DATASETS`."""
    return read_label_list(dataset) if dataset in DATASETS and dataset not in CAPTIONED else None


def read_published(dataset: str, root: Path, table: Path | None = None) -> tuple[list[Recording], Path | None]:
    """
    Read the test part of a data set; a recording that is missing is listed with the path that it might have.

    Args:
        dataset: Key in `DATASETS`.
        root: Folder of the recordings.
        table: Path of its table, where it is not in or beside `root`, or another part of the data set.

    Returns:
        The recordings, and the table that was read; None where the names of recordings said it all.

    Raises:
        ValueError: There is no folder or table, the table is another one, or no recording is there; the message says
            which file was expected where.
    """
    known = DATASETS[dataset]
    if not root.is_dir():
        raise ValueError(f"--audio-root {root}: no such folder; expected the recordings of {known.title}.")
    files = Recordings(root)
    if table is None and known.tables:
        table = find_table(known, files)
    entries = named_entries(files) if table is None else read_table(known, table)
    recordings, missing = collect(entries, files, labels_of(dataset), str(table or root))
    if table and not recordings:
        raise ValueError(f"{table}: holds no rows of the test part of {known.title}.")
    if len(missing) == len(recordings):
        example = f", such as {missing[0]}" if missing else ""
        raise ValueError(
            f"--audio-root {root}: expected the recordings of {known.title}{example}, here or in a sub-folder, with "
            f"any suffix of audio; none of {len(recordings)} is there. Get them from {known.home}"
        )
    return recordings, table


def find_table(known: Published, files: Recordings) -> Path:
    """Find the table in the folder of the recordings, below it, or beside it."""
    root = files.folder.resolve()
    for name in known.tables:
        beside = [path for path in (root.parent / name, *sorted(root.parent.glob(f"*/{name}"))) if path.is_file()]
        if found := files.tables.get(name) or beside:
            if len(found) > 1:
                raise ValueError(f"{known.title}: found {', '.join(map(str, found))}; say which one with --data.")
            return found[0]
    raise ValueError(
        f"{known.title}: expected its table, {' or '.join(known.tables)}, in {files.folder}, below it or beside it; "
        f"name it with --data, or get it from {known.home}"
    )


def read_table(known: Published, table: Path) -> Iterator[Entry]:
    """Read a table of the data set, or one of LTU's files."""
    if not table.is_file():
        raise ValueError(f"--data {table}: no such table of {known.title}.")
    return read_ltu(table) if is_ltu(table) else known.read(table)


def collect(
    entries: Iterator[Entry], files: Recordings, labels: LabelList | None, origin: str
) -> tuple[list[Recording], list[str]]:
    """Bring the rows of each recording together; also list those that are missing."""
    captions: dict[str, list[str]] = {}  # one that comes twice stays twice: AudioCaps has 4,875 rows
    found: dict[str, dict[str, None]] = {}
    missing: dict[str, None] = {}
    problems = []
    for entry in entries:
        if (audio := files.find(entry.stems)) is None:
            missing[audio := files.expected(entry.stems)] = None
        captions.setdefault(audio, []).extend(entry.captions)
        try:
            named = map(labels.find, entry.labels) if labels else ()
            found.setdefault(audio, {}).update(dict.fromkeys(named))
        except ValueError as error:
            problems.append(f"{origin}, line {entry.line}: {error}")
    if problems:
        raise ValueError(summarize(problems, shown=5))
    recordings = [Recording(audio, tuple(captions[audio]), tuple(found[audio])) for audio in found]
    return recordings, list(missing)


def named_entries(files: Recordings) -> Iterator[Entry]:
    """The recordings of Beijing Opera, "205972__ajaysm__daluo-01.wav", which tell their instruments."""
    for line, stem in enumerate(sorted(files.paths), start=1):
        yield Entry(line, (stem,), labels=(stem.split("__")[-1].split("-")[0],))
