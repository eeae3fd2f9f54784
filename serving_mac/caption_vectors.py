"""Vectors of an index's captions by a sentence encoder, each different caption once, in `embeddings.parquet`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluation_mac.metrics.text_encoder import TextEncoder
from processing_mac.audio_state_mac import hash_weights
from processing_mac.whole_files_mac import write_file_whole


EMBEDDINGS = "embeddings.parquet"


def keep_vectors(folder: Path, captions: Sequence[str], encoder: TextEncoder, name: str) -> None:
    """
    Write the vectors of all captions of an index; only those of new ones are computed.

    Args:
        folder: Folder of the index.
        captions: Captions of its segments.
        encoder: Encoder.
        name: Folder or Hub id of the encoder, by which `mac-search` finds it.
    """
    unique = list(dict.fromkeys(captions))
    if not unique:
        return
    vectors = caption_vectors(folder, unique, encoder)
    width = vectors.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
    about = {"name": os.path.abspath(name) if os.path.isdir(name) else name, "weights": hash_weights(encoder.model)}
    table = pa.table({"caption": unique, "embedding": column}).replace_schema_metadata({"encoder": json.dumps(about)})
    with write_file_whole(folder / EMBEDDINGS) as temporary:
        pq.write_table(table, temporary)


def caption_vectors(folder: Path, captions: Sequence[str], encoder: TextEncoder) -> np.ndarray:
    """
    Give the vectors of captions, (captions, width) float32 of length 1; those that the index keeps are not computed.

    Raises:
        ValueError: The file of vectors is damaged.
    """
    kept: dict[str, np.ndarray] = {}
    table = read_vectors(folder)
    if table is not None and encoder_of(table)["weights"] == hash_weights(encoder.model):
        vectors = table["embedding"].combine_chunks()
        rows = vectors.flatten().to_numpy().reshape(len(vectors), -1)
        kept = dict(zip(table["caption"].to_pylist(), rows, strict=True))
    new = [caption for caption in dict.fromkeys(captions) if caption not in kept]
    if new:
        kept |= zip(new, encoder.embed_text(new), strict=True)
    return np.stack([kept[caption] for caption in captions])


def kept_encoder(folder: Path) -> str | None:
    """Return the name of the encoder whose vectors an index keeps; None if it keeps none."""
    table = read_vectors(folder)
    return None if table is None else encoder_of(table)["name"]


def read_vectors(folder: Path) -> pa.Table | None:
    """Read the table of vectors; None if there is none."""
    file = folder / EMBEDDINGS
    if not file.exists():
        return None
    try:
        table = pq.ParquetFile(file).read()
        if table.column_names != ["caption", "embedding"] or {"name", "weights"} - set(encoder_of(table)):
            raise ValueError("it has other columns")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: is damaged ({error}); delete it and run mac-index --encoder again") from error
    return table


def encoder_of(table: pa.Table) -> dict[str, str]:
    """Return `name` and `weights`, the hash, of the encoder of a table of vectors."""
    return json.loads(table.schema.metadata[b"encoder"])
