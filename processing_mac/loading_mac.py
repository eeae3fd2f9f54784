"""A captioner from a folder or the Hub, on the installed classes."""

import importlib
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor
from transformers.utils import logging

from .pipeline_mac import AudioCaptioningPipeline


def load_captioner(
    model: str | PathLike,
    *,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    prompt: str | None = None,
    return_segments: bool = False,
    num_beams: int | None = None,
) -> AudioCaptioningPipeline:
    """
    The pipeline of a saved model; no code of its folder runs.

    Args:
        model: Folder or Hub id of a MAC model.
        revision: Branch, tag or commit of a model on the Hub; "main" if None.
        device: Device to run on; the first accelerator if None, else the CPU.
        dtype: Type of the weights; the one that the model's configuration names if None.
        prompt: What to ask; if None or blank, what the model was trained with.
        return_segments: Whether to caption every window, too.
        num_beams: Beams of the search; what the model ships with if None.

    Raises:
        ValueError: the model cannot be loaded, or there is no such device.
    """
    importlib.import_module(
        "modeling_mac"
    )  # registers the models; the packages that travel know nothing of each other
    logging.disable_progress_bar()
    source: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    try:
        return AudioCaptioningPipeline(
            AutoModelForMultimodalLM.from_pretrained(model, dtype=dtype or "auto", **source),
            processor=AutoProcessor.from_pretrained(model, **source),
            device=device,
            prompt=(prompt or "").strip() or None,
            return_segments=return_segments,
            generate_kwargs={"num_beams": num_beams} if num_beams else None,
        )
    except (OSError, ValueError, RuntimeError, AssertionError) as error:  # the last two: torch, for a missing device
        what = "" if Path(model).is_dir() else "is no folder, and as a Hub id "
        raise ValueError(f"{model} {what}cannot be loaded: {error}") from error


__all__ = ["load_captioner"]
