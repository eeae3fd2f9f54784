"""
The outputs of a frozen encoder, computed once for several epochs of examples and read again in later ones.

Audio that comes again unchanged, in another epoch or in another run that keeps its encodings in the same folder, is
not encoded again, while the texts are those of each epoch.

An encoder is surer of the recordings that it has learnt from than of others. So that a language model does not come
to rely on this, a share of another example may be mixed into each (as in manifold mixup, arXiv 1806.05236, but the
caption stays that of the greater part), and each may be changed when it is read (objectives/evidence.py).
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch.utils.data import Dataset
from tqdm import tqdm

from modeling_mac import EatModel
from processing_mac.whole_files_mac import write_file_whole


ENCODER_BATCH = 16  # examples, and windows of these, that are encoded at a time


class EncodedExamples(Dataset):
    """
    Examples with `encoder_hidden_states` (windows, 1 + patches, dim) in place of `input_features`.

    Args:
        examples: Training set that is encoded epoch after epoch.
        encoder: Frozen encoder that makes the hidden states.
        variants: Number of epochs to encode; epoch e of the training reads variant e modulo `variants`.
        file: Path where this process keeps the float16 encodings while it needs them.
        mix: Greatest share, from 0 to 1, of another example of the same epoch that is mixed into each.
        seed: Seed of the mixing, used together with epoch and row.
        device: Device that the encoder runs on here; it then goes back to where it was.
        folder: Folder that keeps the encodings for other runs with this encoder; None for none.
        change: Changes each example's encoding when it is read, given that, its recording's path, and a generator.

    Raises:
        OSError: There is no room for the file.
    """

    def __init__(
        self,
        examples: Any,
        encoder: EatModel,
        variants: int,
        file: Path,
        mix: float = 0.0,
        seed: int = 0,
        device: torch.device | str = "cpu",
        folder: Path | None = None,
        change: Callable[[torch.Tensor, str, np.random.Generator], torch.Tensor] | None = None,
    ):
        self.examples, self.variants, self.epoch = examples, variants, 0
        self.mix, self.seed, self.change = mix, seed, change
        rows, columns = encoder.config.grid
        store = GrowingStore(file, (1 + rows * columns, encoder.config.hidden_size))
        store.reserve(variants * len(examples))  # one window for each example; longer examples make the store grow
        kept = None if folder is None else folder / f"{digest_of_weights(encoder)}.safetensors"
        # Digest of an example's windows -> its first row in the store and the row after its last.
        self.known = {} if kept is None else read_encodings(kept, store)
        self.used = before = max((end for _, end in self.known.values()), default=0)
        self.places: list[tuple[int, int]] = []
        self.others: list[dict[str, Any]] = []
        home, was_training = encoder.device, encoder.training
        encoder.eval().to(device)
        for variant in tqdm(range(variants), desc="encoding", unit="epoch"):
            examples.set_epoch(variant)
            for first in range(0, len(examples), ENCODER_BATCH):
                batch = range(first, min(first + ENCODER_BATCH, len(examples)))
                self.encode([examples[row] for row in batch], encoder, store)
        self.encoded = store.rows
        encoder.train(was_training).to(home)
        if kept is not None and self.used > before:
            write_encodings(kept, self.encoded[: self.used], self.known)

    @torch.no_grad()
    def encode(self, batch: Sequence[dict[str, Any]], encoder: EatModel, store: "GrowingStore") -> None:
        """Encode those of a few examples whose audio is new, and append them to the store."""
        first, new = self.used, []
        for example in batch:
            windows = example["input_features"]
            digest = hashlib.blake2b(windows.numpy().tobytes(), digest_size=16).hexdigest()
            if digest not in self.known:
                self.known[digest] = self.used, self.used + len(windows)
                self.used += len(windows)
                new.append(windows)
            self.places.append(self.known[digest])
            self.others.append({name: example[name] for name in example if name != "input_features"})
        store.reserve(self.used)
        for place, windows in enumerate(torch.cat(new).split(ENCODER_BATCH) if new else ()):
            states = encoder(windows.to(encoder.device)).last_hidden_state
            begin = first + place * ENCODER_BATCH
            store.rows[begin : begin + len(windows)] = states.cpu().half().numpy()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer's data loader calls this at the start of each."""
        self.epoch = epoch

    @property
    def lengths(self) -> list[int]:
        """The tokens of each example as the training set estimates them, for grouping by length."""
        return self.examples.lengths

    @property
    def num_skipped(self) -> int:
        """The number of recordings that could not be read."""
        return self.examples.num_skipped

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, row: int) -> dict[str, Any]:
        variant = self.epoch % self.variants * len(self)
        states, rng = self.states(variant + row), np.random.default_rng([self.seed, self.epoch, row])
        if self.mix:
            other = self.states(variant + int(rng.integers(len(self))))[: len(states)]
            mixed = states[: len(other)].lerp(other, float(rng.uniform(0, self.mix)))
            states = torch.cat([mixed, states[len(other) :]])
        if self.change is not None:
            states = self.change(states, self.others[variant + row]["audio"], rng)
        return {"encoder_hidden_states": states, **self.others[variant + row]}

    def states(self, place: int) -> torch.Tensor:
        """Give the hidden states of an example: (windows, 1 + patches, dim)."""
        begin, end = self.places[place]
        return torch.from_numpy(self.encoded[begin:end]).float()


def digest_of_weights(encoder: EatModel) -> str:
    """A hash of an encoder's configuration and weights."""
    found = hashlib.blake2b(encoder.config.to_json_string().encode(), digest_size=16)
    for name, weight in sorted(encoder.state_dict().items()):
        found.update(name.encode())
        found.update(weight.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def read_encodings(file: Path, store: "GrowingStore") -> dict[str, tuple[int, int]]:
    """Copy what an earlier run kept to the beginning of the store; gives the places by digest."""
    if not file.is_file():
        return {}
    with safe_open(file, "np") as stored:
        rows = stored.get_tensor("rows")
        store.reserve(len(rows))
        store.rows[: len(rows)] = rows
        return {name: tuple(place) for name, place in json.loads(stored.metadata()["places"]).items()}


def write_encodings(file: Path, rows: np.ndarray, places: dict[str, tuple[int, int]]) -> None:
    """Keep encodings (windows, 1 + patches, dim) and their places by digest; of two runs at once, the last one's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_file_whole(file) as partial:
        save_file({"rows": rows}, partial, metadata={"places": json.dumps(places)})


class GrowingStore:
    """
    float16 numbers in a file without a name, which is gone when the process ends, however it ends.

    Room is reserved before it is written to, since a mapping that meets a full disk later kills the process.

    Args:
        file: Path that the file has until it is opened.
        row_shape: Shape of one stored row.

    Attributes:
        rows: The stored numbers, (rows, *row_shape).
    """

    def __init__(self, file: Path, row_shape: tuple[int, ...]):
        self.name, self.row_shape = file, row_shape
        file.parent.mkdir(parents=True, exist_ok=True)
        self.stream = open(file, "w+b")  # noqa: SIM115 the file stays open as long as the store lives
        self.rows = np.zeros((0, *row_shape), np.float16)

    def reserve(self, count: int) -> None:
        """
        Make room for `count` rows in all, or for half as many again as before if that is more.

        Raises:
            OSError: The disk has no room.
        """
        if count <= len(self.rows):
            return
        count = max(count, len(self.rows) * 3 // 2)
        shape = (count, *self.row_shape)
        size = int(np.prod(shape)) * np.dtype(np.float16).itemsize
        try:
            if hasattr(os, "posix_fallocate"):  # macOS does not have it
                os.posix_fallocate(self.stream.fileno(), 0, size)
            self.rows = np.memmap(self.stream, np.float16, "r+", shape=shape)
        except OSError as error:
            raise OSError(
                f"{self.name}: no room for {size / 1e6:,.1f} MB of encodings ({error}). Make room, or lower "
                "`cached_epochs`."
            ) from error
        finally:
            self.name.unlink(missing_ok=True)
