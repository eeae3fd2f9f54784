"""
Encoded sound -> blocks of samples, decoded until the data ends.

The content alone chooses the decoder, never a name, and no length that a header states is believed: what a recorder,
a pipe or a broken download wrote there is often wrong.
"""

import io
import struct
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile


try:
    import av
except ImportError:  # a folder's own code may run where PyAV is not installed
    av = None

BLOCK = 2**16  # samples of a block, or a few more
HEADER_BYTES = 2**16  # in which the length of the sound is stated, if at all
# A list of addresses that calls itself sound must not make FFmpeg open them; and the search for DTS inside of PCM
# would take ten times as long as the decoding of a short WAV.
OPTIONS = {"protocol_whitelist": "none", "max_probe_packets": "1"}
ESTIMATED = {"aac", "ac3", "eac3", "amr", "amrnb", "amrwb", "dts", "gsm", "mpeg", "mpegts", "voc"}  # state no length
MANY_PLANES = 8  # from so many channels on, PyAV would read a frame whose channels lie apart beyond its memory
STREAMED = 2**31 - 2**25  # so many bytes or more are stated where the length was not known


def decode_blocks(file: BinaryIO, name: str) -> Iterator[tuple[np.ndarray, int]]:
    """
    Decode a file block by block; memory does not grow with its length.

    Args:
        file: Opened for reading, at its start. One that cannot seek will do for most formats.
        name: What errors and warnings call it.

    Yields:
        (channels, samples) float32 in [-1, 1], and their rate in Hz. Rate and channels may change where recordings
        were joined to one file.

    Raises:
        ValueError: not sound, or none that can be decoded.

    Warns:
        UserWarning: some of the sound is missing or broken: what, and how much.
    """
    problems: list[str] = []
    content = None
    try:
        content = Content(file, problems)
        frames = _decode_with_av(content, problems) if av else _decode_with_soundfile(content)
        yield from _join(frames)
    except Exception as error:  # decoders and file objects raise whatever they like
        reason = _explain(error, content)
        hint = "" if av else "; PyAV reads more formats: pip install av"
        raise ValueError(f"{name}: cannot be read as audio ({reason}{hint}).") from error
    if problems:
        warnings.warn(f"{name}: {'; '.join(problems)}.", stacklevel=2)


def _explain(error: Exception, content: "Content | None") -> str:
    """Why nothing could be decoded, in more words than the decoder's."""
    if av and content and isinstance(error, av.InvalidDataError):
        if content.start[4:8] in (b"ftyp", b"mdat", b"wide"):
            return "its index, which a recorder writes last, is missing or broken"
        return "in no format of sound that FFmpeg knows, or broken at its start"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def stated_seconds(path: str) -> float | None:
    """The length that a file states, to plan with, not to rely on; None where it states none or is no sound."""
    try:
        with open(path, "rb") as file:
            if av is None:
                return soundfile.info(file).duration
            content = Content(file, [])
            with av.open(content, options=OPTIONS, metadata_errors="replace") as container:
                return _stated(container, _find_sound(container, []), content)
    except Exception:  # as above
        return None


def _decode_with_av(content: "Content", problems: list[str]) -> Iterator[tuple[np.ndarray, int]]:
    with av.open(content, options=OPTIONS, metadata_errors="replace") as container:
        stream = _find_sound(container, problems)
        heard, broken = 0.0, []
        packets = container.demux(stream)
        while (packet := _next_packet(packets, problems)) is not None:
            try:
                frames = [(_to_floats(frame), frame.sample_rate) for frame in packet.decode()]
            except (av.FFmpegError, ValueError):
                broken.append(float((packet.duration or 0) * stream.time_base))
                continue
            for samples, rate in frames:
                heard += samples.shape[1] / rate
                yield samples, rate
        if broken:
            problems.append(f"{len(broken)} packets ({sum(broken):.2f} s) of sound are broken and left out")
        if problems and not heard:
            raise ValueError("; ".join(problems))
        stated = _stated(container, stream, content)
        if content.is_whole and stated is not None and heard < stated - max(0.25, 0.02 * stated):
            problems.append(f"{heard:.2f} s of the {stated:.2f} s that it states are there")


def _find_sound(container: Any, problems: list[str]) -> Any:
    """The sound track that a player would take."""
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


def _next_packet(packets: Iterator[Any], problems: list[str]) -> Any:
    """The next packet of sound; None at the end, or where the file is broken so that nothing more can be found."""
    try:
        return next(packets, None)
    except av.FFmpegError as error:
        problems.append(f"what follows cannot be read ({error.strerror})")
        return None


def _stated(container: Any, stream: Any, content: "Content") -> float | None:
    """Seconds that a header states; None where FFmpeg could only guess from the size or from another stream."""
    format_name, duration = container.format.name, stream.duration
    if format_name in ESTIMATED or (format_name == "mp3" and not content.has_count):
        return None
    if duration is not None:
        return float(duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return container.duration / 1e6
    return None


def _to_floats(frame: Any) -> np.ndarray:
    """A frame's (channels, samples) float32, PCM integers brought to [-1, 1]."""
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
    """Frames, often of a few milliseconds, as blocks; each of one rate and number of channels."""
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
    """Where a header states how many bytes of sound there are, how, and where these begin."""

    position: int
    kind: str  # as `struct` calls it
    unknown: int  # what says that the sound goes on to the end of the file
    begin: int
    counted: int  # bytes of a chunk's own head that are counted too
    outer: int | None  # where the length of the whole is stated, if FFmpeg believes that


W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
# First bytes of a file: the mark before its length, bytes between the two, and then as in `Length` without `begin`.
LENGTHS: dict[bytes, tuple[bytes, int, str, int, int, int | None]] = {
    b"RIFF": (b"data", 0, "<I", 2**32 - 1, 0, None),
    b"RF64": (b"ds64", 12, "<Q", 2**40, 0, None),
    b"FORM": (b"SSND", 0, ">I", 2**31 - 2, 0, 4),
    b".snd": (b".snd", 4, ">I", 2**32 - 1, 0, None),
    b"riff": (W64_DATA, 0, "<Q", 2**40, 24, 16),
    b"caff": (b"data", 0, ">q", -1, 0, None),
}


def find_length(head: bytes) -> Length | None:
    """Where uncompressed formats state the length of their sound; None in others."""
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
    What a decoder reads of a file: its bytes without its name, and a stated length that is wrong put right.

    Args:
        file: Opened for reading, at its start.
        problems: Where a missing end is noted.
    """

    def __init__(self, file: BinaryIO, problems: list[str]):
        self.file = file
        self.problems = problems
        self.mended: dict[int, bytes] = {}  # what stands in for the file's own bytes, by position
        self.start = b""
        self.is_whole = self.seekable()  # as far as its bytes tell; of a stream they do not
        self.has_count = False  # an MP3's first frame tells how many follow
        if self.seekable():
            head = file.read(HEADER_BYTES)
            self.start = head[:8]
            self.has_count = any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))
            if length := find_length(head):
                self.mend(length, head)
            file.seek(0)

    def mend(self, length: Length, head: bytes) -> None:
        """State no length where the file goes on behind it, or ends before it."""
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
        """Whether the sound ends where it is said to: there is nothing more, or a chunk of something else."""
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

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
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
        """As a file's; libsndfile asks for it."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a file's, but -1 for a place that does not exist, which FFmpeg asks for in broken files."""
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return -1

    def tell(self) -> int:
        """As a file's."""
        return self.file.tell()

    def seekable(self) -> bool:
        """As a file's."""
        return bool(getattr(self.file, "seekable", lambda: hasattr(self.file, "seek"))())


__all__ = ["decode_blocks", "stated_seconds"]
