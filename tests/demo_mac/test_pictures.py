"""The pictures: what lies where."""

import base64
import io
import re

import matplotlib.image
import numpy as np
import pytest

from demo_mac.pictures import COLUMNS, TICKS, draw_log_mel, draw_recording, hertz_places, time_places
from processing_mac import MacFeatureExtractor


@pytest.fixture
def extractor() -> MacFeatureExtractor:
    return MacFeatureExtractor()


def read_image(picture: str) -> np.ndarray:
    """(rows, columns) brightness of the log-mel, the first row at the bottom."""
    data = base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", picture)[1])
    return matplotlib.image.imread(io.BytesIO(data), format="png")[::-1, :, :3].sum(axis=2)


@pytest.mark.parametrize("hertz", [1000, 4000])
def test_a_tone_lies_at_its_tick_and_time(hertz, extractor):
    """A tone in the third second of four."""
    time = np.arange(64_000) / 16_000
    waveform = np.where((time >= 2) & (time < 3), np.sin(2 * np.pi * hertz * time), 0).astype(np.float32)
    image = read_image(draw_log_mel(extractor.raw_log_mel(waveform).numpy()))
    rows, columns = np.nonzero(image > 0.98 * image.max())
    [place] = [place for place, label in hertz_places(extractor).items() if label == TICKS[hertz]]
    assert (np.median(rows) + 0.5) / image.shape[0] == pytest.approx(place, abs=0.01)
    assert columns.min() / image.shape[1] == pytest.approx(0.5, abs=0.02)
    assert columns.max() / image.shape[1] == pytest.approx(0.75, abs=0.02)


def test_ticks_stay_on_their_axes(extractor):
    for seconds in (0.025, 0.7, 5, 10.24, 59.9, 600):
        assert len(time_places(seconds)) >= 2
        assert all(0 <= place <= 1 for place in time_places(seconds))
    assert time_places(20)[0.5] == "10"
    assert time_places(180)[0.5] == "1:30" and time_places(600)[0.2] == "2:00"
    assert all(0 < place < 1 for place in hertz_places(extractor))


def test_a_short_sound_in_a_long_recording_is_not_lost(extractor):
    """One click in three minutes must be seen in both pictures, each of a bounded size."""
    waveform = np.zeros(16_000 * 180, np.float32)
    waveform[16_000 * 90] = 0.5
    picture = draw_recording(waveform, extractor, [])
    image = read_image(picture)
    assert image.shape[1] <= COLUMNS and (image.max(axis=0) > image.min()).sum() in (1, 2)
    heights = [float(y) for y in re.findall(r",(-?[\d.]+)", re.search(r'd="([^"]+)"', picture)[1])]
    assert len(heights) <= 2 * COLUMNS and min(heights) == -1  # SVG counts down


def test_silence_is_dark(extractor):
    waveform = np.zeros(16_000, np.float32)
    image = read_image(draw_recording(waveform, extractor, []))
    assert image.max() < 0.1
    picture = draw_recording(waveform, extractor, [])
    assert re.findall(r">(−?[\d.]+)</span>", picture.split("Log-mel")[0]) == ["0"] and "dB" not in picture


def test_segments_lie_on_the_time_axis(extractor, sound):
    segments = [
        {"start": 0.0, "end": 10.0, "caption": "a dog"},
        {"start": 10.0, "end": 20.0, "caption": "<script>alert(1)</script>"},
        {"start": 20.0, "end": 25.0, "caption": "rain"},
    ]
    picture = draw_recording(sound(25), extractor, segments)
    boxes = re.findall(
        r'<div style="left:([\d.]+)%;width:([\d.]+)%" data-start="([\d.]+)" data-end="([\d.]+)"', picture
    )
    assert boxes == [
        ("0.00", "40.00", "0.000", "10.000"),
        ("40.00", "40.00", "10.000", "20.000"),
        ("80.00", "20.00", "20.000", "25.000"),
    ]
    assert re.findall(r'class="border" style="left:([\d.]+)%', picture) == ["40.00", "80.00"] * 2
    assert "<script" not in picture
    rows = re.findall(r'<button type="button" data-start="([\d.]+)".*?<time>(.*?)</time> <span>(.*?)</span>', picture)
    assert rows == [
        ("0.000", "0:00–0:10", "a dog"),
        ("10.000", "0:10–0:20", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("20.000", "0:20–0:25", "rain"),
    ]


def test_a_caption_cannot_leave_its_attribute(extractor, sound):
    segments = [
        {"start": 0.0, "end": 2.0, "caption": '" onclick="alert(1)'},
        {"start": 2.0, "end": 4.0, "caption": "b"},
    ]
    assert 'onclick="' not in draw_recording(sound(4), extractor, segments)


def test_one_segment_is_the_caption_itself(extractor, sound):
    picture = draw_recording(sound(5), extractor, [{"start": 0.0, "end": 5.0, "caption": "a dog"}])
    assert "a dog" not in picture and "lane" not in picture
