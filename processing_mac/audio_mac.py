"""Turns anything that a user calls audio into a mono float32 waveform at the model's rate, whole or in blocks."""

import io
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from numbers import Real
from typing import Any

import numpy as np
import soxr

from .decoding_mac import decode_blocks
from .fetching_mac import UrlLimits, open_source
from .web_addresses_mac import hide_password


MIN_SAMPLES = 400  # samples of one frame: 25 ms at 16 kHz
MIN_RATE, MAX_RATE = 8_000, 192_000  # Hz: from telephones to studio recorders; a rate outside is more likely a mistake
MAX_CHANNELS = 64  # an array with more is more likely a batch of clips
# 36 dB above full scale. No recorder of floats gets there, but samples that were left at the scale of int16 do.
MAX_AMPLITUDE = 64.0

# Suffixes that a search through folders takes for recordings, those of videos among them. A file that the user names
# is read whatever its suffix is.
AUDIO_SUFFIXES = (
    ".3g2", ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au", ".avi", ".caf", ".dts",
    ".eac3", ".flac", ".flv", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp1", ".mp2", ".mp3", ".mp4", ".mpeg",
    ".mpg", ".mpga", ".oga", ".ogg", ".ogv", ".opus", ".ra", ".rf64", ".rm", ".snd", ".spx", ".tta", ".voc", ".w64",
    ".wav", ".wave", ".weba", ".webm", ".wma", ".wmv", ".wv",
)  # fmt: skip


class TooLongError(ValueError):
    """A clip is longer than the caller wants to hold in memory."""


Blocks = Generator[tuple[np.ndarray, float], None, None]  # (channels, samples) and their rate


def load_waveform(
    audio: Any,
    sampling_rate: Any = None,
    target_rate: int = 16_000,
    name: str = "",
    url_limits: Mapping[str, Any] | None = None,
    max_seconds: float | None = None,
) -> np.ndarray:
    """
    Load one clip as (samples,) float32 at `target_rate` Hz, with its channels averaged.

    The content of a file and not its name decides what it is; of a video the sound is taken. A file is decoded until
    its data ends, whatever length its header states.

    Args:
        audio: A path, `file://`, `http://` or `https://` address, encoded bytes, an open binary file (read from its
            start if it can seek), a numpy array or torch tensor ((samples,), or channels and samples in either order),
            a list of floats, a pair of such an array and its rate in either order, a dict with `array` or `raw` and
            `sampling_rate` or with `bytes` or `path`, a torchcodec decoder, or a row of `datasets` with one of these
            in its column `audio`.
        sampling_rate: Rate in Hz of a bare array; files and dicts bring their own.
        target_rate: Rate in Hz of the result.
        name: Name of this clip in error messages, such as its file or row.
        url_limits: Fields of `UrlLimits` that replace its defaults, such as `{"silent_seconds": 5}`.
        max_seconds: Length in seconds above which a clip is refused, as soon as so much is decoded; None for any.

    Raises:
        TooLongError: The clip is longer than `max_seconds`; this is a ValueError, too.
        ValueError: The clip is empty or shorter than 400 samples; it has NaN or Inf,
            samples far beyond [-1, 1], samples of a type that is no PCM, more than two axes, or no sampling rate from
            8 to 192 kHz; or it cannot be fetched or decoded. The message names the clip.

    Warns:
        UserWarning: Some of a file's sound is missing or broken; the message says what and how much.
    """
    audio, sampling_rate, name = _unwrap(audio, sampling_rate, name)
    blocks, samples = [], 0
    with closing(_convert(_open(audio, sampling_rate, name, url_limits, whole=True), target_rate, name)) as waveform:
        for block in waveform:
            blocks.append(block)
            samples += len(block)
            if max_seconds is not None and samples > max_seconds * target_rate:
                raise TooLongError(f"{name}: longer than {max_seconds:g} s, which is the limit.")
    if samples < MIN_SAMPLES:
        what = f"{samples} samples at {target_rate} Hz" if samples else "empty audio"
        raise ValueError(f"{name}: {what}; expected at least {MIN_SAMPLES} samples at {target_rate} Hz (25 ms).")
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def read_blocks(
    audio: Any,
    sampling_rate: Any = None,
    target_rate: int = 16_000,
    name: str = "",
    url_limits: Mapping[str, Any] | None = None,
) -> Iterator[np.ndarray]:
    """
    Read one clip of any length in bounded memory.

    The blocks joined together are, bit by bit, what `load_waveform` returns. An open file that cannot seek, such as a
    pipe, is read as its data comes and need never end.

    Args:
        audio, sampling_rate, target_rate, name, url_limits: Arguments of `load_waveform`.

    Yields:
        Blocks of the clip, (samples,) float32 at `target_rate` Hz with averaged channels, most of a second or two.

    Raises:
        ValueError: The clip is faulty, as for `load_waveform`, but the error comes when the fault is reached, and a
            clip may be empty or very short.
    """
    audio, sampling_rate, name = _unwrap(audio, sampling_rate, name)
    yield from _convert(_open(audio, sampling_rate, name, url_limits, whole=False), target_rate, name)


def is_list_of_clips(audio: Any) -> bool:
    """
    Tell whether this is many clips: a list, or a column or rows of `datasets`.

    A list of numbers is one clip, and so is a pair of an array and its rate.
    """
    if isinstance(audio, (list, tuple)):
        return not _is_pair(audio) and not (len(audio) and isinstance(audio[0], Real))
    single = isinstance(audio, (str, bytes, bytearray, memoryview, os.PathLike, Mapping)) or hasattr(
        audio, "__array__"
    )
    return not single and hasattr(audio, "__getitem__") and hasattr(audio, "__len__")


def _is_pair(audio: Any) -> bool:
    """Tell whether this is a rate with its array, in the order of gradio or in that of soundfile and torchaudio."""
    return (
        isinstance(audio, (list, tuple))
        and len(audio) == 2
        and any(_is_rate(rate) and _is_array(array) for rate, array in (audio, audio[::-1]))
    )


def _is_rate(value: Any) -> bool:
    """Tell whether this can be a sampling rate: a number, a scalar of numpy or torch, or digits in a string."""
    is_scalar = hasattr(value, "__array__") and np.ndim(value) == 0
    return is_scalar or isinstance(value, Real) or (isinstance(value, str) and value.strip().isdecimal())


def _is_array(value: Any) -> bool:
    """Tell whether this holds samples: an array, or a list of numbers or of lists."""
    is_numbers = isinstance(value, list) and len(value) > 0 and isinstance(value[0], (Real, list))
    return is_numbers or (hasattr(value, "__array__") and np.ndim(value) > 0)


def _unwrap(audio: Any, sampling_rate: Any, name: str) -> tuple[Any, Any, str]:
    """Take the audio itself (a path, address, bytes, file, decoder or array), its rate and its name out of dicts."""
    if _is_pair(audio):
        rate, array = audio if _is_array(audio[1]) else reversed(audio)
        return array, rate, name or "audio array"
    if isinstance(audio, Mapping):
        for key in ("array", "raw", "bytes", "path", "audio"):
            if audio.get(key) is not None:
                path = audio.get("path")
                name = name if key == "path" or not isinstance(path, str) else _join_names(name, path)
                return _unwrap(audio[key], audio.get("sampling_rate", sampling_rate), name)
        raise ValueError(
            f"{name or 'audio dict'}: has the keys {sorted(map(str, audio))}; expected `array` or `raw` with "
            "`sampling_rate`, or `bytes`, or `path`, or a row with `audio`."
        )
    if isinstance(audio, (str, os.PathLike)):
        audio = os.fsdecode(audio)
        return audio, None, _join_names(name, audio.partition(",")[0] if audio.startswith("data:") else audio)
    if hasattr(audio, "read_bytes"):  # such as the row of a data set, whose `str` is its name
        return audio.read_bytes(), None, _join_names(name, str(audio))
    is_bytes = isinstance(audio, (bytes, bytearray, memoryview))
    return audio, sampling_rate, name or ("audio bytes" if is_bytes else "audio array")


def _join_names(name: str, source: str) -> str:
    """Make the name that an error gives to a clip that has a row, a file or both."""
    # The name of a file need not be UTF-8, and an address can be very long.
    source = hide_password(source).encode(errors="backslashreplace").decode()[:200]
    return f"{name} ({source})" if name and source else name or source or repr(source)


def _open(audio: Any, rate: Any, name: str, limits: Mapping[str, Any] | None, whole: bool) -> Blocks:
    """
    Open a clip and give blocks with its own channels and rate.

    Args:
        audio: Path, address, bytes, open file, decoder or array.
        rate: Rate in Hz of an array.
        name: Name of the clip in error messages.
        limits: Fields of `UrlLimits` that replace its defaults.
        whole: Whether the clip will be read to its end, so that a pipe may be copied first.
    """
    if isinstance(audio, str):
        with open_source(audio, name, UrlLimits(**(limits or {}))) as file:
            yield from decode_blocks(_rewind(file, name, whole), name)
    elif isinstance(audio, (bytes, bytearray, memoryview)):
        if not len(audio):
            raise ValueError(f"{name}: no bytes; expected audio.")
        yield from decode_blocks(io.BytesIO(audio), name)
    elif hasattr(audio, "read"):
        if isinstance(audio, io.TextIOBase):
            raise ValueError(f"{name}: a file that is open for text; expected one opened with `rb`.")
        yield from decode_blocks(_rewind(audio, name, whole), name)
    elif hasattr(audio, "get_all_samples"):  # a row of `datasets` that torchcodec decodes
        try:
            samples = audio.get_all_samples()
        except ValueError:
            raise
        except Exception as error:  # the errors of a foreign decoder have no common class
            raise ValueError(f"{name}: cannot be read as audio ({error}).") from error
        yield _to_floats(samples.data, name), _to_rate(samples.sample_rate, name)
    else:
        yield _to_floats(audio, name), _to_rate(rate, name)


def _rewind(file: Any, name: str, whole: bool) -> Any:
    """
    Return the file at its start.

    Decoders of many formats must go back in a file. One that cannot is copied, unless it is to be read as it comes.
    """
    try:
        if getattr(file, "seekable", lambda: hasattr(file, "seek"))():
            file.seek(0)
        elif whole:
            # Up to 16 MB stay in memory. The file ends with the last reference to it.
            copy = tempfile.SpooledTemporaryFile(max_size=2**24)  # noqa: SIM115
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            return copy
    except Exception as error:  # the errors of a foreign file object have no common class
        raise ValueError(f"{name}: cannot be read as audio ({error}).") from error
    return file


def _to_rate(rate: Any, name: str) -> float:
    """Convert a rate of any type to a number of Hz."""
    if rate is None:
        raise ValueError(f"{name}: an array needs its `sampling_rate` in Hz; none was given.")
    try:
        return float(rate)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: sampling rate {rate!r}; expected a number of Hz.") from error


def _to_floats(array: Any, name: str) -> np.ndarray:
    """Convert anything that numpy understands to (channels, samples) float32, with PCM integers scaled to [-1, 1]."""
    if not (hasattr(array, "__array__") or isinstance(array, (list, tuple))):
        raise ValueError(
            f"{name}: {type(array).__name__}; expected a path, URL, bytes, an open binary file, an array of samples "
            "with its `sampling_rate`, or a dict with these."
        )
    try:
        if hasattr(array, "detach"):
            array = array.detach().cpu()
            array = array.float() if array.is_floating_point() else array  # numpy knows no bfloat16
        array = np.asarray(array)
    except Exception as error:  # a tensor without data, a list of unequal lists and others raise different errors
        raise ValueError(f"{name}: cannot be read as an array ({error}).") from error
    if array.size == 0:
        raise ValueError(f"{name}: empty audio; expected at least {MIN_SAMPLES} samples.")
    if array.ndim not in (1, 2):
        raise ValueError(f"{name}: array of shape {array.shape}; expected (samples,) or two axes with channels.")
    if array.ndim == 2:
        array = array if array.shape[0] <= array.shape[1] else array.T  # the shorter axis holds the channels
        if len(array) > MAX_CHANNELS:
            raise ValueError(f"{name}: {len(array)} channels; expected up to {MAX_CHANNELS}. Many clips are a list.")
    array = np.atleast_2d(array)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        return array.astype(np.float32, copy=False)
    if kind == "u" and size == 1:
        return (array.astype(np.float32) - 128.0) / 128.0
    if kind == "i" and size <= 4:
        return (array / 2.0 ** (8 * size - 1)).astype(np.float32)
    raise ValueError(
        f"{name}: samples of type {array.dtype}; expected floats in [-1, 1], or PCM: uint8, int8, int16 or int32."
    )


def _convert(blocks: Blocks, target_rate: int, name: str) -> Generator[np.ndarray, None, None]:
    """Check blocks, (channels, samples), average their channels and resample them to (samples,) float32."""
    rate: float | None = None
    resampler: soxr.ResampleStream | None = None
    position = 0
    with closing(blocks):
        for block, block_rate in blocks:
            if not MIN_RATE <= block_rate <= MAX_RATE:
                raise ValueError(f"{name}: sampling rate {block_rate:.10g} Hz; expected {MIN_RATE} to {MAX_RATE} Hz.")
            mono = block[0] if len(block) == 1 else block.mean(axis=0)
            _check_samples(block, mono, position, name)
            position += len(mono)
            if block_rate != rate:
                if resampler is not None:  # give what it still holds at the old rate
                    yield resampler.resample_chunk(mono[:0], last=True)
                rate = block_rate
                resampler = None
                if rate != target_rate:
                    resampler = soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ")
            yield np.ascontiguousarray(mono if resampler is None else resampler.resample_chunk(mono))
        if resampler is not None:
            yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _check_samples(block: np.ndarray, mono: np.ndarray, position: int, name: str) -> None:
    """
    Refuse NaN, Inf and samples far beyond [-1, 1].

    Args:
        block: Samples of all channels, (channels, samples).
        mono: Their mean, (samples,).
        position: Place of the block's first sample in the clip.
        name: Name of the clip in error messages.
    """
    finite = np.isfinite(mono)
    if not finite.all():
        raise ValueError(f"{name}: has NaN or Inf at sample {position + int(np.argmin(finite))}; expected numbers.")
    peak = max(block.max(initial=0.0), -block.min(initial=0.0))
    if peak > MAX_AMPLITUDE:
        raise ValueError(
            f"{name}: samples of up to {peak:.6g}; expected floats in [-1, 1]. Those at the scale of int16 are to be "
            "divided by 32768."
        )


__all__ = ["AUDIO_SUFFIXES", "TooLongError", "is_list_of_clips", "load_waveform", "read_blocks"]
