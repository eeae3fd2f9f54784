"""The microphone of a visitor: chunks in, captions out."""

import base64

import numpy as np
import pytest

from demo_mac import live
from demo_mac.live import EVERY, MAX_LISTENERS, QUIET_SECONDS, Listener, Room, read_samples
from processing_mac import AudioCaptioningPipeline


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


def encode(samples: np.ndarray) -> str:
    """As `microphone.js` does."""
    return base64.b64encode((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()).decode()


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_every_few_seconds_a_caption(captioner, sound, rate):
    """What was heard is told before the end, the rest at the end, whatever the chunks and the rate."""
    listener = Listener(captioner)
    samples = np.resize(sound(13), 13 * rate)
    told = []
    for chunk in np.array_split(samples, 11):
        listener.hear(encode(chunk), rate)
        told.append(len(listener.segments))
    assert told[0] == 0 and listener.segments[-1]["end"] == 2 * EVERY
    listener.end()
    assert listener.segments[0]["start"] == 0 and listener.segments[-1]["end"] == pytest.approx(13, abs=0.01)
    assert all(segment["caption"] for segment in listener.segments)


def test_the_captions_are_those_of_the_stream(captioner, sound):
    samples = np.round(sound(12) * 32_767) / 32_768
    listener, stream = Listener(captioner), captioner.stream(every=EVERY, merge=True)
    listener.hear(base64.b64encode(np.round(samples * 32_768).astype("<i2").tobytes()).decode(), 16_000)
    listener.end()
    assert listener.segments == [*stream.push(samples), *stream.close()]


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        ("no base64 at all", 16_000, "in a form that this page does not read"),
        (base64.b64encode(b"odd").decode(), 16_000, "in a form"),
        (None, 16_000, "in a form"),
        ("", 10**9, "expected 8000 to 192000"),
        ("", "<b>16000", "expected 8000 to 192000"),
        (base64.b64encode(bytes(2 * 8_000 * 61)).decode(), 8_000, "comes too late"),
    ],
)
def test_what_no_browser_sends(samples, rate, message):
    with pytest.raises(ValueError, match=message):
        read_samples(samples, rate)


def test_it_does_not_listen_for_ever(captioner, sound, monkeypatch):
    monkeypatch.setattr(live, "MAX_LIVE_SECONDS", 6)
    listener = Listener(captioner)
    listener.hear(encode(sound(6)), 16_000)
    heard = listener.stream.received
    with pytest.raises(ValueError, match="Begin anew"):
        listener.hear(encode(sound(6)), 16_000)
    assert listener.stream.received == heard  # what is beyond it costs nothing


def test_there_is_room_for_a_few(captioner, monkeypatch):
    room, clock = Room(), [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    *first, last = [Listener(captioner) for _ in range(MAX_LISTENERS + 1)]
    for listener in [*first, *first]:  # those that are in stay
        room.admit(listener)
    with pytest.raises(ValueError, match="4 microphones at a time"):
        room.admit(last)
    room.leave(first[0])
    room.admit(last)
    with pytest.raises(ValueError, match="4 microphones at a time"):
        room.admit(first[0])
    clock[0] = QUIET_SECONDS + 1  # those whose pages were closed
    room.admit(first[0])
