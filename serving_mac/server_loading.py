"""The start of a server or of workers: what is loaded where, and heard once before anyone asks if it is compiled."""

from typing import Any

import numpy as np

from processing_mac import AudioCaptioningPipeline, load_captioner


# Each compiles a step of its own: of one row, of several, and of those that are split. A batch has more rows than
# recordings where there are beams or a recording is captioned in parts.
COMPILED_BATCHES = (1, 2, 8)


def load_for_service(model: str, loading: dict[str, Any]) -> AudioCaptioningPipeline:
    """
    Load a captioner whose step in C++, if it has one, is compiled before the first request.

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


def loading_beside_workers(device: str | None, int8: bool, compile: bool) -> dict[str, Any]:
    """
    Arguments of `load_captioner` in place of those of the workers, for the machine that starts them.

    A model that cannot be loaded is told by that machine, which need not have what the workers have: the CPU will do.
    What is compiled for a CPU is compiled there, too.

    Args:
        device: Device of the workers, or None for the first that each has.
        int8: Whether the weights are rounded to 8 bits.
        compile: Whether they compile.
    """
    for_cpu = device.startswith("cpu") if device else int8
    return {"device": "cpu", "compile": compile and for_cpu}
