"""What a microphone hears: samples come in as the browser records them, and every few seconds a caption comes out."""

import base64
import binascii
import time
from typing import Any

import numpy as np

from processing_mac import AudioCaptioningPipeline
from processing_mac.audio_mac import MAX_RATE, MIN_RATE
from processing_mac.listening_mac import CaptionStream, merge_equal


EVERY = 5.0  # seconds of a caption
MAX_CHUNK_SECONDS = 60  # longest chunk, which a browser sends that could not send for so long
MAX_LIVE_SECONDS = 3600  # longest time for which one visitor is listened to
MAX_LISTENERS = 4  # microphones that are heard at a time
QUIET_SECONDS = 60  # after which a microphone that sends nothing does not count among them: its page was closed


class Listener:
    """
    One visitor's microphone.

    Args:
        captioner: Pipeline of the model.

    Attributes:
        segments: What was heard until now: `start` and `end` in seconds and `caption`. Neighbours that say the same
            are one.
        problem: Why it hears no more, in words; empty as long as it does.
    """

    def __init__(self, captioner: AudioCaptioningPipeline):
        self.stream: CaptionStream = captioner.stream(every=EVERY, merge=False)
        self.segments: list[dict[str, Any]] = []
        self.problem = ""

    def hear(self, samples: Any, rate: Any) -> None:
        """
        Hear the next chunk.

        Args:
            samples: Samples of 16 bits, little end first, in base64.
            rate: Their rate in Hz.

        Raises:
            ValueError: They are something else, or more than the page listens to.
        """
        waveform = read_samples(samples, rate)
        if self.stream.received + len(waveform) > MAX_LIVE_SECONDS * rate:
            raise ValueError(f"This page listens for up to {MAX_LIVE_SECONDS // 60} minutes. Begin anew to go on.")
        self.add(self.stream.push(waveform, rate))

    def end(self) -> None:
        """Caption what is left."""
        self.add(self.stream.close())

    def add(self, segments: list[dict[str, Any]]) -> None:
        """Add segments to what was heard."""
        self.segments = merge_equal([*self.segments, *segments])


class Room:
    """
    Room for so many listeners at a time.

    Attributes:
        heard: When each of them was last heard, in seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self.heard: dict[Listener, float] = {}

    def admit(self, listener: Listener) -> None:
        """Let a listener in, or stay; a ValueError tells that there is no room."""
        now = time.monotonic()
        self.heard = {one: last for one, last in self.heard.items() if now - last < QUIET_SECONDS}
        if listener not in self.heard and len(self.heard) >= MAX_LISTENERS:
            raise ValueError(
                f"This page hears {MAX_LISTENERS} microphones at a time, and so many are heard now. "
                "Please try again in a few minutes."
            )
        self.heard[listener] = now

    def leave(self, listener: Listener) -> None:
        """Make room for another one."""
        self.heard.pop(listener, None)


def read_samples(samples: Any, rate: Any) -> np.ndarray:
    """Read what a browser sends as samples, (samples,) float32 in [-1, 1]; a ValueError refuses anything else."""
    if not isinstance(rate, int | float) or not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"The microphone has {rate!r:.20} samples a second; expected {MIN_RATE} to {MAX_RATE}.")
    try:
        data = base64.b64decode(samples, validate=True)
        waveform = np.frombuffer(data, "<i2").astype(np.float32) / 32_768
    except (TypeError, ValueError, binascii.Error):
        raise ValueError("The microphone's sound came in a form that this page does not read.") from None
    if len(waveform) > MAX_CHUNK_SECONDS * rate:
        raise ValueError("The microphone's sound comes too late. Is the connection slow? Begin anew to go on.")
    return waveform
