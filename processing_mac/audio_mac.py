"""Anything a user calls audio -> a mono float32 waveform at the model's rate."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from transformers.audio_utils import load_audio


MIN_SAMPLES = 400  # one 25 ms frame at 16 kHz
MIN_RATE, MAX_RATE = 8_000, 192_000


def load_waveform(
    audio: Any, sampling_rate: int | None = None, target_rate: int = 16_000, name: str = ""
) -> np.ndarray:
    """
    Load one clip as (samples,) float32 at `target_rate` Hz, channels averaged.

    Args:
        audio: A path, URL, encoded bytes, a numpy array or torch tensor ((samples,), or channels and samples in
            either order), a list of floats, a dict with `array` or `raw` and `sampling_rate` or with `bytes` or
            `path`, or a decoded row of `datasets`.
        sampling_rate: Rate in Hz of a bare array; files and dicts bring their own.
        target_rate: Rate in Hz of the result.
        name: What an error calls this clip, such as its file or row.

    Raises:
        ValueError: the clip is empty, shorter than 400 samples, has NaN or Inf, more than two axes, no or another
            sampling rate than 8 to 192 kHz, samples that are no PCM, or cannot be decoded. The message names the clip.
    """
    if isinstance(audio, dict):
        return _load_dict(audio, target_rate, name)
    if isinstance(audio, (str, Path)):
        return _load_file(str(audio), target_rate, name)
    if isinstance(audio, bytes):
        array, sampling_rate = _decode(io.BytesIO(audio), name or "audio bytes")
    elif hasattr(audio, "get_all_samples"):  # a `datasets` row decoded by torchcodec
        samples = audio.get_all_samples()
        array, sampling_rate = samples.data.T, samples.sample_rate
    else:
        array = audio
    return _to_mono(array, sampling_rate, target_rate, name or "audio array")


def _join_names(name: str, source: str | None) -> str:
    """What an error calls a clip that has a row, a file or both."""
    return f"{name} ({source[:200]})" if name and source else name or (source or "")[:200]


def _load_dict(audio: dict, target_rate: int, name: str) -> np.ndarray:
    for key in ("array", "raw", "bytes", "path"):
        if audio.get(key) is not None:
            name = name if key == "path" else _join_names(name, audio.get("path"))
            return load_waveform(audio[key], audio.get("sampling_rate"), target_rate, name)
    raise ValueError(
        f"{name or 'audio dict'}: has the keys {sorted(audio)}; expected `array` or `raw` with `sampling_rate`, "
        "or `bytes`, or `path`."
    )


def _load_file(source: str, target_rate: int, name: str) -> np.ndarray:
    """Read a path or URL; what libsndfile cannot open goes through torchcodec where that is installed."""
    name = _join_names(name, source)
    if source.startswith(("http://", "https://", "data:")):
        return _to_mono(_try_load_audio(source, target_rate, name), target_rate, target_rate, name)
    path = os.path.expanduser(source)
    if not os.path.isfile(path):
        raise ValueError(f"{name}: no such audio file.")
    if os.path.getsize(path) == 0:
        raise ValueError(f"{name}: the file is empty; expected audio.")
    suffix = Path(path).suffix.lower()
    if suffix[1:].upper() in soundfile.available_formats() or suffix in (".opus", ".oga"):
        array, sampling_rate = _decode(path, name)
        return _to_mono(array, sampling_rate, target_rate, name)
    return _to_mono(_try_load_audio(path, target_rate, name), target_rate, target_rate, name)


def _try_load_audio(source: str, target_rate: int, name: str) -> np.ndarray:
    try:
        return load_audio(source, sampling_rate=target_rate)
    except Exception as error:  # decoders and HTTP clients raise whatever they like
        raise ValueError(f"{name}: cannot be read as audio ({error}).") from error


def _decode(file: str | io.BytesIO, name: str) -> tuple[np.ndarray, int]:
    try:
        return soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name}: cannot be read as audio ({error}).") from error


def _to_mono(array: Any, sampling_rate: int | None, target_rate: int, name: str) -> np.ndarray:
    """Check, average the channels and resample; `array` is anything numpy understands."""
    if not (hasattr(array, "__array__") or isinstance(array, (list, tuple))):
        raise ValueError(
            f"{name}: {type(array).__name__}; expected a path, URL, bytes, an array of samples with its "
            "`sampling_rate`, or a dict with these."
        )
    array = _to_numpy(array)
    if sampling_rate is None:
        raise ValueError(f"{name}: an array needs its `sampling_rate` in Hz; none was given.")
    if not MIN_RATE <= sampling_rate <= MAX_RATE:
        raise ValueError(f"{name}: sampling rate {sampling_rate} Hz; expected {MIN_RATE} to {MAX_RATE} Hz.")
    if array.ndim not in (1, 2):
        raise ValueError(f"{name}: array of shape {array.shape}; expected (samples,) or two axes with channels.")
    if array.size == 0:
        raise ValueError(f"{name}: empty audio; expected at least {MIN_SAMPLES} samples at {target_rate} Hz.")
    array = _to_float(array, name)
    if array.ndim == 2:
        array = array.mean(axis=int(np.argmin(array.shape)))  # the shorter axis holds the channels
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: has NaN or Inf at sample {int(np.argmin(np.isfinite(array)))}; expected numbers.")
    if sampling_rate != target_rate:
        array = soxr.resample(array, sampling_rate, target_rate, quality="HQ")
    if len(array) < MIN_SAMPLES:
        raise ValueError(f"{name}: {len(array)} samples at {target_rate} Hz; expected at least {MIN_SAMPLES} (25 ms).")
    return np.ascontiguousarray(array)


def _to_numpy(array: Any) -> np.ndarray:
    """A tensor of any device and dtype, an array or a list of numbers."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.float() if array.is_floating_point() else array  # numpy has no bfloat16
    return np.asarray(array)


def _to_float(array: np.ndarray, name: str) -> np.ndarray:
    """Samples as float32, PCM integers brought to [-1, 1]."""
    if array.dtype in (np.int16, np.int32):
        array = array / (np.iinfo(array.dtype).max + 1.0)
    elif array.dtype.kind != "f":
        raise ValueError(f"{name}: samples of type {array.dtype}; expected floats in [-1, 1], or int16 or int32 PCM.")
    return array.astype(np.float32, copy=False)
