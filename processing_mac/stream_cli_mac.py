"""`mac-caption --stream SOURCE`: captions what comes from a pipe, a microphone or a server, as it is heard."""

import argparse
import io
import json
import queue
import signal
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from .audio_mac import read_blocks
from .pipeline_mac import AudioCaptioningPipeline
from .reading_ahead_mac import warnings_of_decoding_printed


FIELDS = ("time", "start", "end", "caption")  # of a record of a segment: clock time, and seconds of what was heard
RATE = 16_000  # Hz of raw PCM on standard input, s16le in one channel
PCM_BYTES = RATE // 5 * 2  # a fifth of a second
# How a file of sound begins; anything else on standard input is raw PCM.
CONTAINERS = (b"RIFF", b"RF64", b"OggS", b"fLaC", b"ID3", b"FORM", b"\x1aE\xdf\xa3")
RETRY_SECONDS = (1, 2, 5, 10, 30)  # pauses before an address is opened again; the last one repeats


def caption_stream(captioner: AudioCaptioningPipeline, options: argparse.Namespace, output: Any = None) -> int:
    """
    Print or write a line for each segment until the source ends, or until Ctrl-C or SIGTERM.

    Args:
        captioner: Pipeline that writes the captions.
        options: Options of the command: `stream` is "-", "mic", an address or a file; `format` may be "jsonl";
            `reconnect` opens an address again that stalled or ended.
        output: `CaptionFile` with the fields `FIELDS` to write to; None prints.

    Returns:
        The exit code: 0 if sound was heard to the end of the source or to a signal, 1 if it broke or held none.

    Raises:
        OSError: A line cannot be printed or written.
    """
    search = {"num_beams": options.num_beams} if options.num_beams else {}
    stream = captioner.stream(prompt=options.prompt or None, merge=True, cut=options.cut, **search)
    clock, known, heard, code = datetime.now(), False, 0, 0  # clock: that of the stream's second 0

    def show(segments: list[dict[str, Any]]) -> None:
        for segment in segments:
            tell(segment, clock, options.format, output)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was heard last is told
    try:
        with warnings_of_decoding_printed(sys.stderr), closing(read_source(options)) as blocks:
            for block in blocks:
                if block is None:  # what comes next was heard some time later: a segment and a clock of its own
                    show(stream.close())
                    known = False
                    continue
                heard += len(block)
                if not known:
                    clock, known = datetime.now() - timedelta(seconds=heard / RATE), True
                show(stream.push(block))
    except KeyboardInterrupt:
        pass
    except ValueError as error:
        print(f"mac-caption: {error}", file=sys.stderr)
        code = 1
    finally:
        signal.signal(signal.SIGTERM, before)
    show(stream.close())
    if not heard and not code:
        print(f"mac-caption: {options.stream}: no sound came", file=sys.stderr)
        code = 1
    return code


def tell(segment: dict[str, Any], clock: datetime, format: str | None, output: Any) -> None:
    """Write or print a segment with the clock time of its start, given that of second 0, as a record or as text."""
    start = clock + timedelta(seconds=segment["start"])
    record = {"time": start.isoformat(timespec="seconds"), **segment}
    if output is not None:
        output.append(record)
    elif format == "jsonl":
        print(json.dumps(record, ensure_ascii=False), flush=True)
    else:
        seconds = segment["end"] - segment["start"]
        print(f"{start:%H:%M:%S}\t{seconds:.1f} s\t{segment['caption']}", flush=True)


def read_source(options: argparse.Namespace) -> Generator[np.ndarray | None, None, None]:
    """Read (samples,) float32 at 16 kHz from what `--stream` names, and None where some of it was missed."""
    if options.stream == "-":
        if sys.stdin is None:
            raise ValueError("standard input: is closed; expected raw PCM or a sound file")
        yield from read_pipe(sys.stdin.buffer)
    elif options.stream == "mic":
        yield from read_microphone()
    elif options.stream.startswith(("http://", "https://")):
        yield from read_address(options.stream, options.url_timeout or 20, options.reconnect)
    else:
        yield from read_blocks(options.stream)


def read_pipe(file: Any) -> Iterator[np.ndarray]:
    """Read a pipe: a file of sound by how it begins, else raw PCM, s16le of one channel at 16 kHz."""
    try:
        start = file.peek(4)[:4] if hasattr(file, "peek") else b""
        if start.startswith(CONTAINERS):
            yield from read_blocks(file, name="standard input")
            return
        rest = b""
        while data := file.read1(PCM_BYTES):
            data = rest + data
            even = len(data) - len(data) % 2  # a pipe may cut a sample in two
            rest = data[even:]
            yield np.frombuffer(data[:even], "<i2").astype(np.float32) / 32_768
    except OSError as error:
        raise ValueError(f"standard input: cannot be read ({error})") from error


def read_microphone() -> Iterator[np.ndarray]:
    """Read the default microphone for ever; a ValueError says what it needs."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # without PortAudio the import is an OSError
        raise ValueError(f"mic: needs PortAudio and `pip install sounddevice`, the extra [mic] ({error}).") from error
    blocks: queue.Queue[np.ndarray] = queue.Queue()
    try:
        with sounddevice.InputStream(
            RATE, PCM_BYTES // 2, channels=1, dtype="float32", callback=lambda data, *_: blocks.put(data[:, 0].copy())
        ):
            while True:
                yield blocks.get()
    except sounddevice.PortAudioError as error:
        raise ValueError(f"mic: cannot be read ({error}).") from error


def read_address(url: str, silent_seconds: float, reconnect: bool) -> Iterator[np.ndarray | None]:
    """
    Read a stream from a server as it comes.

    Args:
        url: Address of the stream, `http://` or `https://`.
        silent_seconds: Most seconds without a byte.
        reconnect: Whether to open it again, for ever, when it stalls, breaks or ends.

    Yields:
        Blocks, (samples,), and None wherever it is opened again.

    Raises:
        ValueError: It cannot be opened or broke, and `reconnect` is off.
    """
    failures = 0
    while True:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "mamba-audio-captioning"})
            with urllib.request.urlopen(request, timeout=silent_seconds) as response:
                for block in read_blocks(Unseekable(response), name=url):
                    failures = 0
                    yield block
            problem = f"{url}: ended"
            if not reconnect:
                return
        except (OSError, ValueError) as error:
            problem = str(error) if isinstance(error, ValueError) else f"{url}: {error}"
            if not reconnect:
                raise ValueError(problem) from error
        pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
        failures += 1
        print(f"mac-caption: {problem}; opening it again in {pause} s", file=sys.stderr, flush=True)
        yield None
        time.sleep(pause)


class Unseekable(io.RawIOBase):
    """A response of a server as a file that is only read onwards, so that nothing waits for its end."""

    def __init__(self, response: Any):
        self.response = response

    def read(self, size: int = -1) -> bytes:
        return self.response.read1(size) if size != 0 else b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


__all__ = ["FIELDS", "caption_stream"]
