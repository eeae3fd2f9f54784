"""
Decodes encoded sound to blocks of samples until its data ends.

The decoder is chosen by the content alone and never by a name. No length that a header states is believed, since
what a recorder, a pipe or a broken download left there is often wrong.
"""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile


try:
    import av
except ImportError:  # a folder's own code may run where PyAV is not installed
    av = None

BLOCK = 2**16  # least number of samples in a block, but for the last: 4 s at 16 kHz
HEADER_BYTES = 2**16  # bytes at the start of a file in which the length of its sound is stated, if it is at all
# No protocol is allowed, since a playlist that calls itself sound must not make FFmpeg open its addresses. One probed
# packet is enough, since the search for DTS inside of PCM takes ten times as long as decoding a short WAV.
OPTIONS = {"protocol_whitelist": "none", "max_probe_packets": "1"}
# Formats that state no length, for which FFmpeg estimates one from the size.
ESTIMATED = {"aac", "ac3", "eac3", "amr", "amrnb", "amrwb", "dts", "gsm", "mpeg", "mpegts", "voc"}
MANY_PLANES = 8  # channels; from here on PyAV would read beyond the memory of a frame with separate channels
STREAMED = 2**31 - 2**25  # bytes; a program that does not know the length states as many or more

# Takes what is lost of a sound in place of warnings, of which Python has one list of filters for all threads.
LOSSES: ContextVar[list[str] | None] = ContextVar("LOSSES", default=None)


@contextmanager
def losses_kept() -> Iterator[list[str]]:
    """Give a list that takes, while the block lasts, what is lost of recordings that are decoded in this thread."""
    losses: list[str] = []
    before = LOSSES.set(losses)
    try:
        yield losses
    finally:
        LOSSES.reset(before)


def decode_blocks(file: BinaryIO, name: str) -> Iterator[tuple[np.ndarray, int]]:
    """
    Decode a file block by block; memory does not grow with its length.

    Args:
        file: File that is open for reading, at its start. For most formats it need not be able to seek.
        name: Name of the file in errors and warnings.

    Yields:
        Blocks of (channels, samples) float32 in [-1, 1], each with its rate in Hz. Rate and channels may change where
        several recordings were joined to one file.

    Raises:
        ValueError: The file holds no sound, or none that can be decoded.

    Warns:
        UserWarning: Some of the sound is missing or broken; the message says what and how much. Within `losses_kept`
            its list takes the message.
    """
    problems: list[str] = []
    content = None
    try:
        content = Content(file, problems)
        frames = _decode_with_av(content, problems) if av else _decode_with_soundfile(content)
        yield from _join(frames)
    except Exception as error:  # the errors of decoders and foreign file objects have no common class
        reason = _explain(error, content)
        hint = "" if av else "; PyAV reads more formats: pip install av"
        raise ValueError(f"{name}: cannot be read as audio ({reason}{hint}).") from error
    if not problems:
        return
    message, losses = f"{name}: {'; '.join(problems)}.", LOSSES.get()
    if losses is None:
        warnings.warn(message, stacklevel=2)
    else:
        losses.append(message)


def _explain(error: Exception, content: "Content | None") -> str:
    """Say why nothing could be decoded, where possible in clearer words than the decoder's."""
    if av and content and isinstance(error, av.InvalidDataError):
        if content.start[4:8] in (b"ftyp", b"mdat", b"wide"):
            return "its index, which a recorder writes last, is missing or broken"
        return "in no format of sound that FFmpeg knows, or broken at its start"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Stated(NamedTuple):
    """What a file states of its sound, which is good enough for plans but may be wrong."""

    seconds: float | None  # None where it states none
    rate: int  # Hz
    channels: int


def stated_sound(path: str) -> Stated | None:
    """Read what a file states of its sound, without decoding any; None if it holds no sound."""
    try:
        with open(path, "rb") as file:
            if av is None:
                info = soundfile.info(file)
                return Stated(info.duration, info.samplerate, info.channels)
            content = Content(file, [])
            with av.open(content, options=OPTIONS, metadata_errors="replace") as container:
                stream = _find_sound(container, [])
                codec = stream.codec_context
                return Stated(_stated(container, stream, content), codec.sample_rate, codec.layout.nb_channels)
    except Exception:  # the errors of decoders have no common class
        return None


def stated_seconds(path: str) -> float | None:
    """Read the length in seconds that a file states; None if it states none or holds no sound."""
    stated = stated_sound(path)
    return stated and stated.seconds


def _decode_with_av(content: "Content", problems: list[str]) -> Iterator[tuple[np.ndarray, int]]:
    with av.open(content, options=OPTIONS, metadata_errors="replace") as container:
        stream = _find_sound(container, problems)
        decoder = _decoder_of(stream)
        heard, broken = 0.0, []
        packets = container.demux(stream)
        while (packet := _next_packet(packets, problems)) is not None:
            try:
                frames = [(_to_floats(frame), frame.sample_rate) for frame in decoder.decode(packet)]
            except (av.FFmpegError, ValueError):
                broken.append(float((packet.duration or 0) * stream.time_base))
                continue
            for samples, rate in frames:
                heard += samples.shape[1] / rate
                yield samples, rate
        if broken:
            problems.append(f"{len(broken)} packets ({sum(broken):.2f} s) of sound are broken and left out")
        if (recordings := content.count_recordings()) > 1:
            problems.append(f"holds {recordings} recordings one after another, of which the first is heard")
        if problems and not heard:
            raise ValueError("; ".join(problems))
        stated = _stated(container, stream, content)
        if content.is_whole and stated is not None and heard < stated - max(0.25, 0.02 * stated):
            problems.append(f"{heard:.2f} s of the {stated:.2f} s that it states are there")


def _find_sound(container: Any, problems: list[str]) -> Any:
    """Choose the sound track that a player would take."""
    tracks = container.streams.audio
    if not tracks:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise ValueError(f"it holds {kinds}, but no sound")
    stream = container.streams.best("audio") or tracks[0]
    if stream.codec_context is None:
        raise ValueError("its sound is of a codec that FFmpeg does not decode")
    if len(tracks) > 1:
        problems.append(f"holds {len(tracks)} sound tracks, of which number {tracks.index(stream) + 1} is heard")
    return stream


def _decoder_of(stream: Any) -> Any:
    """
    Choose the decoder of a track: FFmpeg's own, but for Opus that of the format's authors.

    Of some clips FFmpeg's decoder of Opus makes samples of several hundred times full scale, where that one does not.
    """
    if stream.codec_context.name != "opus" or "libopus" not in av.codecs_available:
        return stream.codec_context
    decoder = av.CodecContext.create("libopus", "r")
    decoder.extradata = stream.codec_context.extradata
    return decoder


def _next_packet(packets: Iterator[Any], problems: list[str]) -> Any:
    """Return the next packet of sound, or None at the end or where the file is too broken to find another."""
    try:
        return next(packets, None)
    except av.FFmpegError as error:
        problems.append(f"what follows cannot be read ({error.strerror})")
        return None


def _stated(container: Any, stream: Any, content: "Content") -> float | None:
    """Return the seconds that a header states, or None where FFmpeg only estimates them or takes another stream's."""
    format_name, duration = container.format.name, stream.duration
    if format_name in ESTIMATED or (format_name == "mp3" and not content.has_count):
        return None
    if duration is not None:
        return float(duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return container.duration / 1e6  # FFmpeg counts in microseconds
    return None


def _to_floats(frame: Any) -> np.ndarray:
    """Convert a frame to (channels, samples) float32, with PCM integers scaled to [-1, 1]."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels >= MANY_PLANES:
        [frame] = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate).resample(frame)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    floats = samples.astype(np.float32, copy=False)
    return floats if samples.dtype.kind == "f" else floats / 2.0 ** (8 * samples.itemsize - 1)


def _decode_with_soundfile(content: "Content") -> Iterator[tuple[np.ndarray, int]]:
    with soundfile.SoundFile(content if content.seekable() else io.BytesIO(content.read())) as file:
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            yield block.T, file.samplerate


def _join(frames: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, int]]:
    """Join frames, often of a few milliseconds, to blocks, each of one rate and one number of channels."""
    pending: list[np.ndarray] = []
    held, kind = 0, (0, 0)
    for samples, rate in frames:
        if pending and (held >= BLOCK or kind != (len(samples), rate)):
            yield np.concatenate(pending, axis=1), kind[1]
            pending, held = [], 0
        pending.append(samples)
        held, kind = held + samples.shape[1], (len(samples), rate)
    if pending:
        yield np.concatenate(pending, axis=1), kind[1]


class Length(NamedTuple):
    """The place and the form in which a header states how many bytes of sound there are."""

    position: int  # byte at which the number stands
    kind: str  # type of the number, as `struct` names it
    unknown: int  # number that says that the sound goes on to the end of the file
    begin: int  # byte at which the sound begins
    counted: int  # bytes of the chunk's own head, if the number counts these, too
    outer: int | None  # byte at which the length of the whole file is stated, if FFmpeg believes that


W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
# By the first bytes of a file: the mark before the stated length, the number of bytes between the two, and then the
# fields `kind`, `unknown`, `counted` and `outer` of `Length`.
LENGTHS: dict[bytes, tuple[bytes, int, str, int, int, int | None]] = {
    b"RIFF": (b"data", 0, "<I", 2**32 - 1, 0, None),
    b"RF64": (b"ds64", 12, "<Q", 2**40, 0, None),
    b"FORM": (b"SSND", 0, ">I", 2**31 - 2, 0, 4),
    b".snd": (b".snd", 4, ">I", 2**32 - 1, 0, None),
    b"riff": (W64_DATA, 0, "<Q", 2**40, 24, 16),
    b"caff": (b"data", 0, ">q", -1, 0, None),
}


def find_length(head: bytes) -> Length | None:
    """Find where an uncompressed format states the length of its sound; None in other formats."""
    if head[:4] not in LENGTHS:
        return None
    mark, gap, kind, unknown, counted, outer = LENGTHS[head[:4]]
    found = head.find(mark)
    position = found + len(mark) + gap
    begin = position + struct.calcsize(kind)
    if head[:4] == b".snd":
        begin = int.from_bytes(head[4:8], "big")
    if head[:4] == b"RF64":
        begin = head.find(b"data", position) + 8
    if found < 0 or not position < begin <= len(head):
        return None
    return Length(position, kind, unknown, begin, counted, outer)


class Content:
    """
    A file as a decoder reads it, without a name and with a stated length that is wrong corrected.

    Args:
        file: File that is open for reading, at its start.
        problems: List to which a message is added if the end of the sound is missing.
    """

    def __init__(self, file: BinaryIO, problems: list[str]):
        self.file = file
        self.problems = problems
        self.mended: dict[int, bytes] = {}  # bytes that replace the file's own ones, by their position
        self.start = b""
        self.is_whole = self.seekable()  # as far as can be known; the size of a stream cannot
        self.has_count = False  # whether an MP3's first frame tells how many frames follow
        if self.seekable():
            head = file.read(HEADER_BYTES)
            self.start = head[:8]
            self.has_count = any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))
            if length := find_length(head):
                self.mend(length, head)
            file.seek(0)

    def mend(self, length: Length, head: bytes) -> None:
        """Replace the stated length by "unknown" if the file's sound goes on after it or ends before it."""
        [stated] = struct.unpack_from(length.kind, head, length.position)
        stated -= length.counted
        end, size = length.begin + stated, self.file.seek(0, io.SEEK_END)
        if length.begin <= end <= size and self.is_over(end, size, head[:4], length.kind):
            return
        unknown = struct.pack(length.kind, length.unknown)
        self.mended = dict.fromkeys(
            [length.position] if length.outer is None else [length.position, length.outer], unknown
        )
        self.is_whole = size >= end
        if not self.is_whole and stated < STREAMED:
            there, share = size - length.begin, (size - length.begin) / stated
            self.problems.append(f"{there} of the {stated} bytes of sound that it states are there ({share:.0%})")

    def is_over(self, end: int, size: int, magic: bytes, kind: str) -> bool:
        """Tell whether the sound really ends at byte `end`, with nothing or a chunk of another kind after it."""
        self.file.seek(end + end % 2 if magic in (b"RIFF", b"RF64", b"FORM") else end)
        rest = self.file.read(32)
        if len(rest) < 8:
            return True
        if not rest[:4].isascii() or not rest[:4].decode().isprintable() or rest[:4] == magic or magic == b".snd":
            return False
        if magic == b"riff":
            return True
        [chunk] = struct.unpack_from("<I" if magic == b"RF64" else kind, rest.ljust(16, b"\0"), 4)
        return end + 8 + chunk <= size + 8

    def count_recordings(self) -> int:
        """Count the recordings of an MP4 by their first boxes: FFmpeg passes over all but the first."""
        if self.start[4:8] != b"ftyp":
            return 1
        position, found = 0, 0
        end = self.file.seek(0, io.SEEK_END)
        while position + 8 <= end:
            self.file.seek(position)
            size, kind = struct.unpack(">I4s", self.file.read(8))
            if size == 1:  # the size stands in 64 bits behind the kind
                size = int.from_bytes(self.file.read(8), "big")
            found += kind == b"ftyp"
            if size < 8:  # 0: the box goes on to the end
                break
            position += size
        return max(found, 1)

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, as a file does."""
        if not self.mended:
            return self.file.read(size)
        start = self.file.tell()
        data = bytearray(self.file.read(size))
        for position, mended in self.mended.items():
            for offset, byte in enumerate(mended, start=position - start):
                if 0 <= offset < len(data):
                    data[offset] = byte
        return bytes(data)

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, as a file does; libsndfile calls this."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; return -1 for one that does not exist, which FFmpeg asks for in broken files."""
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return -1

    def tell(self) -> int:
        """Return the position, as a file does."""
        return self.file.tell()

    def seekable(self) -> bool:
        """Tell whether the file can go to a position."""
        return bool(getattr(self.file, "seekable", lambda: hasattr(self.file, "seek"))())


__all__ = ["Stated", "decode_blocks", "losses_kept", "stated_seconds", "stated_sound"]
