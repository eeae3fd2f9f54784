"""The start of a server: its model is loaded and, where it is compiled, heard once before anyone asks."""

from typing import Any

import numpy as np

from processing_mac import AudioCaptioningPipeline, load_captioner


COMPILED_BATCHES = (1, 2, 8)  # each compiles a step of its own: of one row, of several, and of those that are split


def load_for_service(model: str, loading: dict[str, Any], max_batch: int) -> AudioCaptioningPipeline:
    """
    Load a captioner that is as fast at the first request as at any other.

    Args:
        model: Folder or Hub id.
        loading: Further arguments of `load_captioner`.
        max_batch: Recordings in a batch, at most.

    Raises:
        ValueError: It cannot be loaded or compiled.
    """
    captioner = load_captioner(model, **loading)
    if loading.get("compile"):
        rate = captioner.feature_extractor.sampling_rate
        second = {"raw": np.zeros(rate, np.float32), "sampling_rate": rate}
        for size in sorted({min(size, max_batch) for size in COMPILED_BATCHES}):
            captioner([second] * size, batch_size=size)
    return captioner
