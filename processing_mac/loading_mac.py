"""Loads a captioner from a folder or the Hub with the installed classes."""

import importlib
import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor
from transformers.utils import logging

from .pipeline_mac import AudioCaptioningPipeline


logger = logging.get_logger(__name__)


def load_captioner(
    model: str | PathLike,
    *,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    prompt: str | None = None,
    return_segments: bool = False,
    num_beams: int | None = None,
    int8: bool = False,
    compile: bool = False,
) -> AudioCaptioningPipeline:
    """
    Load the pipeline of a saved model; no code of its folder runs.

    Args:
        model: Folder or Hub id of a MAC model.
        revision: Branch, tag or commit of a model on the Hub; "main" if None.
        device: Device to run on; if None, the first accelerator or, without one or to compile 8 bits, the CPU.
        dtype: Number type of the weights, or its name; if None, the one that the model's configuration names.
        prompt: Prompt of every clip; if None or blank, the one that the model was trained with.
        return_segments: Whether every window gets a caption of its own, too.
        num_beams: Number of beams of the search; if None, that of the model's generation configuration.
        int8: Whether the weights are rounded to 8 bits; those of a folder that holds such weights always are.
        compile: Whether a Mamba-2 decodes as one piece: on a CUDA device as a graph, on a CPU in C++, for which it
            needs large layers of 8 bits and which the first captions compile for some seconds each
            (`compile_decoding`).

    Raises:
        ValueError: The model cannot be loaded or, on request, compiled, or there is no such device.
    """
    if not isinstance(prompt, str | None):
        raise ValueError(f"`prompt` is {prompt!r}; expected a text.")
    if device is not None and (problem := device_problem(device)):
        raise ValueError(f"device {device}: {problem}")
    # Registers the models. By name, since in a saved folder neither of the two packages may need the other.
    importlib.import_module("modeling_mac")
    logging.disable_progress_bar()
    source: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    try:
        loaded = AutoModelForMultimodalLM.from_pretrained(model, dtype=dtype or "auto", **source)
        loaded = loaded.to_int8() if int8 else loaded
        needs_cpu = compile and hasattr(loaded.config, "quantization_config")
        captioner = AudioCaptioningPipeline(
            loaded,
            processor=AutoProcessor.from_pretrained(model, **source),
            device=device or ("cpu" if needs_cpu else None),
            prompt=(prompt or "").strip() or None,
            return_segments=return_segments,
            generate_kwargs={"num_beams": num_beams} if num_beams else None,
        )
    except (OSError, ValueError, RuntimeError) as error:  # the last of torch, such as memory that does not suffice
        what = "" if Path(model).is_dir() else "is no folder, and as a Hub id "
        raise ValueError(f"{model} {what}cannot be loaded: {missing_base(Path(model)) or error}") from error
    warn_of_slow_bf16(captioner)
    if compile:
        try:
            importlib.import_module("modeling_mac").compile_decoding(captioner.model)
        except ValueError as error:
            raise ValueError(f"{model} cannot be compiled: {error}") from error
    return captioner


def missing_base(folder: Path) -> str | None:
    """Say that the folder of an adapter, which may have been moved, names a model that is not there; None else."""
    file = folder / "adapter_config.json"
    if not file.is_file() or (folder / "config.json").is_file():
        return None
    base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    if not Path(base).is_absolute() or Path(base).exists():
        return None
    return f"it is an adapter of {base}, which is not there; adapter_config.json names it"


def device_problem(device: str | torch.device, is_here: bool = True) -> str | None:
    """
    Say why torch cannot compute on a device; None if it can.

    Args:
        device: Name of the device.
        is_here: Whether it is to be of this machine; if not, its name alone is looked at.
    """
    try:
        if is_here or torch.device(device).type == "meta":  # which every torch has, but without any numbers
            torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]  # what follows is for torch's developers
        return f"cannot compute here ({reason}); expected a device such as cpu or cuda:1"
    return None


def warn_of_slow_bf16(captioner: AudioCaptioningPipeline) -> None:
    """Say that the weights are bf16, which half the memory but not the time of a processor that does not know it."""
    if captioner.device.type != "cpu" or captioner.model.dtype != torch.bfloat16:
        return
    if not importlib.import_module("modeling_mac.int8_mac").FAST_BF16:
        logger.warning(
            "The weights are bfloat16, for which this processor has no instructions (avx512_bf16, amx): captions take "
            "several times as long as with --dtype float32, in Python dtype=torch.float32."
        )


__all__ = ["device_problem", "load_captioner", "missing_base"]
