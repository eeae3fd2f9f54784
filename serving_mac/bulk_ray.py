"""Captions recordings on all cores or GPUs of a Ray cluster, by Ray Data."""

import importlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from processing_mac import load_captioner
from processing_mac.audio_mac import TooLongError, load_waveform
from processing_mac.captioning_mac import caption_files
from processing_mac.long_recordings_mac import caption_windows, join_captions, load_short

from .bulk_files import is_remote, open_remote


TASK_BATCHES = 8  # batches of the model in one task of Ray: what a killed worker has to do again
STORE_BYTES = 2**28  # of the object store of a Ray that is started here; only names and captions go through it


@dataclass(frozen=True)
class BulkOptions:
    """
    What a worker needs to know.

    Args:
        model: Folder or Hub id.
        batch_size: Recordings in a batch of the model.
        captioner: Further arguments of `load_captioner`.
        url_limits: Fields of `UrlLimits` that replace its defaults.
        folder: Working directory, for names that are relative to it.
    """

    model: str
    batch_size: int
    captioner: dict[str, Any] = field(default_factory=dict)
    url_limits: dict[str, float] = field(default_factory=dict)
    folder: str = "."


class BulkWorker:
    """An actor of Ray Data that holds the model and captions files, decoding ahead as one process does."""

    def __init__(self, options: BulkOptions):
        self.options = options
        if os.path.isdir(options.folder):
            os.chdir(options.folder)
        self.captioner = load_captioner(options.model, **options.captioner)
        self.captioner.feature_extractor.url_limits = options.url_limits

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """
        Caption the files of a batch.

        Args:
            batch: Names in the column `audio`, (files,) of bytes, since a name may be no UTF-8.

        Returns:
            `audio`, and `result`: JSON of the record, or of the `error` of a file that cannot be read.
        """
        files = [name.decode("utf-8", "surrogateescape") for name in batch["audio"].tolist()]
        results = []
        for file, result in caption_files(self.captioner, files, self.options.batch_size, load=self.load):
            if isinstance(result, TooLongError):
                result = self.caption_long(file)
            record = {"error": str(result)} if isinstance(result, ValueError) else result
            results.append(json.dumps(record).encode())
        return {"audio": batch["audio"], "result": np.array(results, dtype=object)}

    def load(self, file: str) -> np.ndarray:
        """Load the waveform, (samples,), of a file that is anywhere; raise TooLongError if the model takes no such."""
        extractor, windows = self.captioner.feature_extractor, self.captioner.processor.trained_windows
        if not is_remote(file):
            return load_short(extractor, windows, file)
        with open_remote(file) as opened:
            return load_waveform(opened, name=file, max_seconds=windows * extractor.window_seconds)

    def caption_long(self, file: str) -> dict[str, Any] | ValueError:
        """Caption a recording window by window, of which some are in memory at a time."""
        try:
            with open_remote(file) if is_remote(file) else nullcontext(file) as opened:
                source: Any = {"bytes": opened, "path": file} if is_remote(file) else file
                segments = list(caption_windows(self.captioner, source))
        except ValueError as error:
            return error
        return {"caption": join_captions(segment["caption"] for segment in segments), "segments": segments}


def start_ray(address: str | None, num_cpus: int | None = None) -> Any:
    """
    Connect to a Ray cluster, or start one on this machine.

    Args:
        address: Address of the cluster, or "auto"; None starts Ray on this machine.
        num_cpus: Cores that a Ray of this machine may use; all if None.

    Raises:
        ValueError: There is no Ray, or none at this address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before the import: nothing is sent to anyone
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what a user can mend comes as an error
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise ValueError("needs Ray: pip install 'mamba-audio-captioning[ray]', in a clone '.[ray]'") from error
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES, "num_cpus": num_cpus}
    try:
        ray.init(address=address or "local", **options)
    except Exception as error:  # Ray's errors of a missing cluster have no common class
        raise ValueError(f"no Ray cluster at {address or 'this machine'} ({error})") from error
    return ray


def caption_on_ray(
    ray: Any, files: list[str], options: BulkOptions, actors: int | None = None
) -> Iterator[tuple[str, dict[str, Any] | ValueError]]:
    """
    Caption files on the cluster, with an actor a GPU or, without any, a core.

    Ray Data starts an actor that dies again, and has its files captioned again.

    Args:
        ray: The module, connected.
        files: Names of the recordings.
        options: What a worker needs to know.
        actors: Number of actors; None for as many as there are GPUs or cores.

    Yields:
        As `caption_files`, in the order of `files`.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors are raised, too
    resources = ray.cluster_resources()
    gpus = 0 if str(options.captioner.get("device") or "").startswith("cpu") else int(resources.get("GPU", 0))
    count = actors or gpus or max(1, int(resources.get("CPU", 1)))
    task_files = max(1, min(TASK_BATCHES * options.batch_size, -(-len(files) // count)))
    items = [{"audio": file.encode("utf-8", "surrogateescape")} for file in files]
    captions = ray.data.from_items(items, override_num_blocks=-(-len(items) // task_files)).map_batches(
        BulkWorker,
        fn_constructor_args=(options,),
        batch_size=task_files,
        compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    for row in captions.iter_rows():
        result = json.loads(row["result"])
        name = row["audio"].decode("utf-8", "surrogateescape")
        yield name, ValueError(result["error"]) if "error" in result else result
