"""The start of a server: its model is loaded and, where it is compiled, heard once before anyone asks."""

from typing import Any

import numpy as np

from processing_mac import AudioCaptioningPipeline, load_captioner


# Each compiles a step of its own: of one row, of several, and of those that are split. A batch has more rows than
# recordings where there are beams or a recording is captioned in parts.
COMPILED_BATCHES = (1, 2, 8)


def load_for_service(model: str, loading: dict[str, Any]) -> AudioCaptioningPipeline:
    """
    Load a captioner that is as fast at the first request as at any other.

    Args:
        model: Folder or Hub id.
        loading: Further arguments of `load_captioner`.

    Raises:
        ValueError: It cannot be loaded or compiled.
    """
    captioner = load_captioner(model, **loading)
    if captioner.is_compiled:
        rate = captioner.feature_extractor.sampling_rate
        second = {"raw": np.zeros(rate, np.float32), "sampling_rate": rate}
        for size in COMPILED_BATCHES:
            captioner([second] * size, batch_size=size, num_beams=1)
    return captioner
