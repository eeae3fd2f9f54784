"""`mac-caption --stream SOURCE`: captions what comes from a pipe, a microphone or a server, as it is heard."""

import argparse
import http.client
import io
import queue
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from .audio_mac import MIN_SAMPLES, read_blocks
from .caption_file_mac import CaptionFile
from .pipeline_mac import AudioCaptioningPipeline
from .reading_ahead_mac import warnings_of_decoding_printed
from .segment_files_mac import SUFFIXES, TABLES, GrowingSegments, SegmentText, format_of, refuse_other_suffix
from .web_addresses_mac import Redirects, hide_password, is_web_address, make_request


FIELDS = ("time", "start", "end", "caption")  # of a record of a segment: clock time, and seconds of what was heard
RATE = 16_000  # Hz of raw PCM on standard input, s16le in one channel
PCM_BYTES = RATE // 5 * 2  # a fifth of a second
# How a file of sound begins, or an MP4 at its byte 4. One without a header is known by its frames, and anything else
# on standard input is raw PCM.
CONTAINERS = (
    *(b"RIFF", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"OggS", b"fLaC", b"ID3", b"wvpk", b"#!AMR"),
    *(b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf\x11"),  # Matroska and WebM; ASF
)
BOXES = (b"ftyp", b"moov", b"mdat", b"wide")
FRAMES = 3  # headers that must follow each other; PCM has one by chance, but not the next where the first one says
# Kilobits a second by the number in a header (ISO 11172-3, ISO 13818-3 and ETSI TS 102 366).
LAYER_2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
LAYER_3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
LOW_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # of both layers below 32 kHz
AC3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
MICROPHONE_BLOCKS = 300  # a minute that may wait for the model
MICROPHONE_SECONDS = 5.0  # without a block, after which the microphone is taken for gone
RETRY_SECONDS = (1, 2, 5, 10, 30)  # pauses before an address is opened again; the last one repeats


def caption_stream(captioner: AudioCaptioningPipeline, options: argparse.Namespace, output: Any = None) -> int:
    """
    Print or write a line for each segment until the source ends, or until Ctrl-C or SIGTERM.

    Args:
        captioner: Pipeline that writes the captions.
        options: Options of the command: `stream` is "-", "mic", an address or a file; `reconnect` opens an address
            again that stalled or ended; without an output, segments are printed in `format`, or else as lines.
        output: What `open_stream_output` opened; None prints.

    Returns:
        The exit code: 0 if sound was heard to the end of the source or to a signal, 1 if it broke or had less than
        25 ms.

    Raises:
        OSError: A line cannot be printed or written.
    """
    search = {"num_beams": options.num_beams} if options.num_beams else {}
    stream = captioner.stream(prompt=options.prompt or None, merge=True, cut=options.cut, **search)
    clock, known, heard, code = datetime.now(), False, 0, 0  # clock: that of the stream's second 0
    tell = choose_telling(options.format, output)

    def show(segments: list[dict[str, Any]]) -> None:
        for segment in segments:
            tell(clock + timedelta(seconds=segment["start"]), segment)

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
    if heard < MIN_SAMPLES and not code:
        what = f"{heard} samples came; expected at least {MIN_SAMPLES} (25 ms)" if heard else "no sound came"
        print(f"mac-caption: {hide_password(options.stream)}: {what}", file=sys.stderr)
        code = 1
    return code


def open_stream_output(path: Path, format: str | None) -> CaptionFile | GrowingSegments:
    """
    Open the file of a stream's segments: a table of any run, or what one run alone writes.

    Args:
        path: Path of the file.
        format: One of `FORMATS`; what the suffix of the path says if None.

    Raises:
        ValueError: The file cannot be taken; see the two classes.
        OSError: It cannot be written.
    """
    chosen = format or format_of(path)
    if chosen is None:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}; or --format.")
    refuse_other_suffix(path, chosen)
    return CaptionFile(path, fields=FIELDS, format=chosen) if chosen in TABLES else GrowingSegments(path, chosen)


def choose_telling(
    format: str | None, output: CaptionFile | GrowingSegments | None
) -> Callable[[datetime, dict[str, Any]], None]:
    """Choose how a segment and the clock time of its start are told: written, printed in a format, or as a line."""
    text = SegmentText(format) if format else None

    def tell(start: datetime, segment: dict[str, Any]) -> None:
        time = start.isoformat(timespec="seconds")
        if output is not None:
            output.append({"time": time, **segment})
        elif text is not None:
            print(text.write([segment], time=time), end="", flush=True)
        else:
            seconds = segment["end"] - segment["start"]
            print(f"{start:%H:%M:%S}\t{seconds:.1f} s\t{segment['caption']}", flush=True)

    return tell


def read_source(options: argparse.Namespace) -> Generator[np.ndarray | None, None, None]:
    """Read (samples,) float32 at 16 kHz from what `--stream` names, and None where some of it was missed."""
    if options.stream == "-":
        if sys.stdin is None:
            raise ValueError("standard input: is closed; expected raw PCM or a sound file")
        yield from read_pipe(sys.stdin.buffer)
    elif options.stream == "mic":
        yield from read_microphone()
    elif is_web_address(options.stream):
        yield from read_address(options.stream, options.url_timeout or 20, options.reconnect)
    else:
        yield from read_blocks(options.stream)


def read_pipe(file: Any) -> Iterator[np.ndarray]:
    """Read a pipe: a file of sound by how it begins, else raw PCM, s16le of one channel at 16 kHz."""
    pipe = Onwards(file)
    try:
        if is_sound_file(pipe):
            start = pipe.peek(8)
            seekable = hasattr(file, "seekable") and file.seekable()  # a redirected file: read again from its start
            try:
                yield from read_blocks(file if seekable else pipe, name="standard input")
            except ValueError as error:
                if seekable or start[4:8] not in BOXES:
                    raise
                hint = "an MP4 whose index comes last cannot be heard from a pipe; give its file"
                raise ValueError(f"{error} ({hint})") from error
            return
        rest = b""
        while data := pipe.read(PCM_BYTES):
            data = rest + data
            even = len(data) - len(data) % 2  # a pipe may cut a sample in two
            rest = data[even:]
            yield np.frombuffer(data[:even], "<i2").astype(np.float32) / 32_768
    except OSError as error:
        raise ValueError(f"standard input: cannot be read ({error})") from error


def is_sound_file(pipe: "Onwards") -> bool:
    """Tell a file of sound from raw PCM by its first bytes, and one without a header by its first frames."""
    start = pipe.peek(8)
    if start.startswith(CONTAINERS) or start[4:8] in BOXES:
        return True
    place, kinds = 0, set()
    for _ in range(FRAMES):
        kind, length = read_frame_header(pipe.peek(place + 6)[place : place + 6])
        kinds.add(kind)
        if not length or len(kinds) > 1:
            return False
        place += length
    return True


def read_frame_header(header: bytes) -> tuple[tuple[int, ...], int]:
    """
    Read the header of a frame of MP2, MP3, AAC (ADTS), AC-3 or E-AC-3.

    Args:
        header: The first 6 bytes of what may be a frame.

    Returns:
        What all frames of a file have in common, and the bytes from this header to the next; 0 if this is none.
    """
    if len(header) == 6 and header[:2] == b"\x0bw":
        return (0x0B,), ac3_length(header)
    if len(header) < 6 or header[0] != 0xFF or header[1] < 0xE0:
        return (), 0
    version, layer, kind = header[1] >> 3 & 3, header[1] >> 1 & 3, (header[1] | 1, header[2] & 0b1100)
    if header[1] & 0xF6 == 0xF0:  # ADTS
        length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
        return (header[1], header[2], header[3] >> 6), length if header[2] >> 2 & 15 < 13 and length >= 7 else 0
    bits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer not in (1, 2) or not 1 <= bits <= 14 or rate == 3 or header[3] & 3 == 2:
        return (), 0
    low = version != 3  # MPEG-2 at half the rates, MPEG-2.5 at a quarter
    kilobits = (LOW_RATES if low else LAYER_2 if layer == 2 else LAYER_3)[bits - 1]
    samples = 576 if low and layer == 1 else 1152
    hertz = (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    return kind, samples * 125 * kilobits // hertz + (header[2] >> 1 & 1)


def ac3_length(header: bytes) -> int:
    """Compute the bytes of a frame of AC-3 or E-AC-3 from its first 6 bytes; 0 if they are none."""
    rate, size, version = header[4] >> 6, header[4] & 63, header[5] >> 3
    if 11 <= version <= 16:  # E-AC-3 states half its bytes
        return 2 * ((header[2] & 7) << 8 | header[3]) + 2
    if version > 10 or rate == 3 or size >= 2 * len(AC3):
        return 0
    kilobits = AC3[size // 2]
    return (4 * kilobits, 2 * (kilobits * 320 // 147 + size % 2), 6 * kilobits)[rate]  # at 48, 44.1 and 32 kHz


def read_microphone() -> Iterator[np.ndarray | None]:
    """
    Read the default microphone for ever.

    Yields:
        Blocks, (samples,), and None wherever a minute was left out, since the model cannot keep up.

    Raises:
        ValueError: It cannot be opened, stopped, or gives nothing.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # without PortAudio the import is an OSError
        raise ValueError(f"mic: needs PortAudio and `pip install sounddevice`, the extra [mic] ({error}).") from error
    waiting = Waiting()
    try:
        with sounddevice.InputStream(
            RATE, PCM_BYTES // 2, channels=1, dtype="float32", callback=waiting.hear
        ) as microphone:
            while True:
                try:
                    yield waiting.blocks.get(timeout=MICROPHONE_SECONDS)
                except queue.Empty:
                    what = f"gave no sound for {MICROPHONE_SECONDS:g} s" if microphone.active else "stopped"
                    raise ValueError(f"mic: {what}; is it still plugged in?") from None
    except sounddevice.PortAudioError as error:
        raise ValueError(f"mic: cannot be read ({error}).") from error


class Waiting:
    """Blocks of a microphone that wait for the model; when there is no room for more, all of them are left out."""

    def __init__(self) -> None:
        self.blocks: queue.Queue[np.ndarray | None] = queue.Queue(MICROPHONE_BLOCKS)
        self.overflowed = False

    def hear(self, data: np.ndarray, frames: int, time: Any, status: Any) -> None:
        """Take a block, (samples, 1), as a callback of sounddevice, whose `status` tells what the system lost."""
        if status and not self.overflowed:
            self.overflowed = True
            print(f"mac-caption: mic: the system lost some samples ({status})", file=sys.stderr, flush=True)
        if self.blocks.full():
            left_out = 0
            with suppress(queue.Empty):
                while True:
                    block = self.blocks.get_nowait()
                    left_out += 0 if block is None else len(block)
            told = f"the model cannot keep up, {left_out / RATE:.0f} s were left out"
            print(f"mac-caption: mic: {told}", file=sys.stderr, flush=True)
            self.blocks.put_nowait(None)
        self.blocks.put_nowait(data[:, 0].copy())


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
    name, failures = hide_password(url), 0
    while True:
        try:
            request = make_request(url)
        except ValueError as error:  # which no reconnecting mends
            raise ValueError(f"{name}: {error}") from error
        try:
            with urllib.request.build_opener(Redirects).open(request, timeout=silent_seconds) as response:
                source = UntilItBreaks(response)
                try:
                    for block in read_blocks(Onwards(source), name=name):
                        failures = 0
                        yield block
                except ValueError:
                    if source.problem is None:
                        raise
                if source.problem is not None:  # also where the decoder complained of what is missing
                    raise source.problem
            problem = f"{name}: ended"
            if not reconnect:
                return
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = explain(error, name, silent_seconds)
            if not reconnect:
                raise ValueError(problem) from error
        pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
        failures += 1
        print(f"mac-caption: {problem}; opening it again in {pause} s", file=sys.stderr, flush=True)
        yield None
        time.sleep(pause)


def explain(error: Exception, name: str, silent_seconds: float) -> str:
    """Say in a line what an error of a server means."""
    reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"{name}: stalled, no byte came for {silent_seconds:g} s"
    return str(error) if isinstance(error, ValueError) else f"{name}: {reason}"


class UntilItBreaks:
    """The response of a server that ends where it stalls or breaks, so that all that came before is decoded."""

    def __init__(self, response: Any):
        self.response = response
        self.problem: Exception | None = None

    def read1(self, size: int = -1) -> bytes:
        if self.problem is None:
            try:
                return self.response.read1(size)
            except (OSError, http.client.HTTPException) as error:
                self.problem = error
        return b""


class Onwards(io.RawIOBase):
    """
    A pipe or the response of a server as a file that is only read onwards, so that nothing waits for its end.

    Args:
        source: Open binary file with `read1`.
    """

    def __init__(self, source: Any):
        self.source = source
        self.held = b""  # read from the source, but not from here

    def peek(self, size: int) -> bytes:
        """Return the next bytes without taking them: at least `size`, or all that come before the end."""
        while len(self.held) < size and (data := self.source.read1(size - len(self.held))):
            self.held += data
        return self.held

    def read(self, size: int = -1) -> bytes:
        if not self.held:
            return self.source.read1(size) if size != 0 else b""
        data = self.held if size < 0 else self.held[:size]
        self.held = self.held[len(data) :]
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


__all__ = ["FIELDS", "caption_stream", "open_stream_output"]
