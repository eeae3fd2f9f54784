"""
A recording as HTML: segments, waveform and log-mel over one time axis, in seconds.

Text stays HTML and curves stay vectors, so that they keep their size on a phone and take the page's colours, light or
dark; only the log-mel is an image. Sizes and colours are in `page.css`; `page.js` moves the playheads and plays what
has the attributes `data-start` and `data-end`.
"""

import base64
import html
import io
import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from transformers.audio_utils import hertz_to_mel

from processing_mac import MacFeatureExtractor
from processing_mac.feature_extraction_mac import DECIBEL, ENERGY_FLOOR, LOW_FREQUENCY


COLUMNS = 1200  # most columns of either picture, which are as many as a wide screen shows
COLORS = "magma"
RANGE = 80 * DECIBEL  # cells this far below the loudest one are black
TICKS = {250: "250", 500: "500", 1000: "1k", 2000: "2k", 4000: "4k", 7000: "7k"}  # Hz
INTERVALS = 6  # most intervals of the time axis
LONG = 120  # seconds from which on times are minutes and seconds
PLAYHEAD = '<i class="playhead"></i>'


def draw_recording(waveform: np.ndarray, extractor: MacFeatureExtractor, segments: list[dict[str, Any]]) -> str:
    """
    Draw one recording as HTML.

    Args:
        waveform: Samples at the extractor's rate, (samples,).
        extractor: Feature extractor of the model, which makes the log-mel.
        segments: `start` and `end` in seconds and `caption` of each segment; a single one is not drawn.
    """
    seconds = len(waveform) / extractor.sampling_rate
    log_mel = extractor.raw_log_mel(waveform).numpy()
    peak = float(np.abs(waveform).max())
    loudest = {0.04: f"−{peak:.2g}", 0.96: f"{peak:.2g}"} if peak else {}
    segments = segments if len(segments) > 1 else []
    borders = "".join(f'<i class="border" style="left:{place(s["start"] / seconds)}"></i>' for s in segments[1:])
    return f"""
<figure class="recording" data-seconds="{seconds:.3f}"
  aria-label="Waveform and log-mel spectrogram of the recording, {seconds:.1f} seconds">
  <div class="plots">
    {draw_lane(segments, seconds)}
    <h2>Waveform <small>amplitude</small></h2>
    <div class="ticks">{ticks({0.5: "0"} | loudest, "bottom")}</div>
    <div class="plot wave">{draw_waveform(waveform, peak)}{borders}{PLAYHEAD}</div>
    <h2>Log-mel <small>Hz on the mel scale {draw_scale(log_mel)}</small></h2>
    <div class="ticks">{ticks(hertz_places(extractor), "bottom")}</div>
    <div class="plot mel">{draw_log_mel(log_mel)}{borders}{PLAYHEAD}</div>
    <div class="ticks time">{ticks(time_places(seconds), "left")}</div>
    <small class="axis">Time ({"min:s" if seconds >= LONG else "s"})</small>
  </div>
  {list_segments(segments)}
</figure>"""


def place(share: float) -> str:
    """Write a share of the width or height, from 0 to 1, for CSS."""
    return f"{100 * share:.2f}%"


def ticks(places: dict[float, str], side: str) -> str:
    """Write labels at their shares of an axis, counted from `side`."""
    return "".join(f'<span style="{side}:{place(share)}">{label}</span>' for share, label in places.items())


def time_places(seconds: float) -> dict[float, str]:
    """Place round numbers of seconds, or from two minutes on of minutes, on the time axis, in few intervals."""
    if seconds >= LONG:
        step = 30 if seconds <= 30 * INTERVALS else 60 * math.ceil(seconds / 60 / INTERVALS)
        return {value / seconds: clock(value) for value in range(0, int(seconds) + 1, step)}
    values = MaxNLocator(INTERVALS, steps=[1, 2, 5, 10]).tick_values(0, seconds)
    return {value / seconds: f"{value:g}" for value in values if 0 <= value <= seconds}


def hertz_places(extractor: MacFeatureExtractor) -> dict[float, str]:
    """Place frequencies on the log-mel's axis, where the middle of mel bin i lies at (i + 0.5) / bins."""
    bins = extractor.feature_size
    low, high = (hertz_to_mel(hertz, "kaldi") for hertz in (LOW_FREQUENCY, extractor.sampling_rate / 2))
    step = (high - low) / (bins + 1)
    return {((hertz_to_mel(hertz, "kaldi") - low) / step - 0.5) / bins: label for hertz, label in TICKS.items()}


def column_starts(length: int) -> np.ndarray:
    """Find the first indices of the runs of values that share a column of a picture."""
    return np.linspace(0, length, min(length, COLUMNS), endpoint=False).astype(int)


def draw_waveform(waveform: np.ndarray, peak: float) -> str:
    """Draw the envelope as a vector picture: least and greatest sample of every column."""
    starts = column_starts(len(waveform))
    scaled = waveform / (peak or 1.0)
    top, bottom = np.maximum.reduceat(scaled, starts), np.minimum.reduceat(scaled, starts)
    points = [f"{x},{-y:.3f}" for x, y in enumerate(top)] + [f"{x},{-y:.3f}" for x, y in enumerate(bottom)][::-1]
    box = f"0 -1.05 {len(starts) - 1} 2.1"
    return f'<svg viewBox="{box}" preserveAspectRatio="none" aria-hidden="true"><path d="M{" ".join(points)}Z"/></svg>'


def color_limits(log_mel: np.ndarray) -> tuple[float, float]:
    """Give the log-mels of black and of the brightest colour, which keep a silent clip black."""
    low = max(float(log_mel.max()) - RANGE, math.log(ENERGY_FLOOR))
    return low, max(float(log_mel.max()), low + 10 * DECIBEL)


def draw_log_mel(log_mel: np.ndarray) -> str:
    """Draw a log-mel (frames, mel bins) as an image of the loudest frame of every column."""
    columns = np.maximum.reduceat(log_mel, column_starts(len(log_mel)), axis=0)
    low, high = color_limits(log_mel)
    file = io.BytesIO()
    imsave(file, columns.T, vmin=low, vmax=high, cmap=COLORS, origin="lower", format="png")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def draw_scale(log_mel: np.ndarray) -> str:
    """Draw what the colours mean; in a silent clip all is black, and they mean nothing."""
    if log_mel.max() < math.log(ENERGY_FLOOR) + DECIBEL:
        return ""
    low, high = color_limits(log_mel)
    colors = ", ".join(to_hex(color) for color in matplotlib.colormaps[COLORS](np.linspace(0, 1, 8)))
    bar = f'<i class="scale" style="background:linear-gradient(to right, {colors})"></i>'
    return f'<span class="colors">{(low - high) / DECIBEL:.0f} dB {bar} loudest</span>'.replace("-", "−", 1)


def draw_lane(segments: list[dict[str, Any]], seconds: float) -> str:
    """Draw the segments over the pictures, each from its start to its end; the list below says the same to readers."""
    if not segments:
        return ""
    boxes = "".join(
        f'<div style="left:{place(segment["start"] / seconds)};'
        f'width:{place((segment["end"] - segment["start"]) / seconds)}" '
        f'{extent(segment)} title="{caption}"><span>{caption}</span></div>'
        for segment, caption in ((segment, html.escape(segment["caption"])) for segment in segments)
    )
    return f'<h2>Timeline</h2><div class="plot lane" aria-hidden="true">{boxes}{PLAYHEAD}</div>'


def list_segments(segments: list[dict[str, Any]]) -> str:
    """List the segments in words, each a button that plays it."""
    rows = "".join(
        f'<li><button type="button" {extent(segment)}><time>{clock(segment["start"])}–{clock(segment["end"])}</time> '
        f"<span>{html.escape(segment['caption'])}</span></button></li>"
        for segment in segments
    )
    return f'<ol class="segments" aria-label="Segments, each a button that plays it">{rows}</ol>' if rows else ""


def extent(segment: dict[str, Any]) -> str:
    """Write the attributes by which a segment is played."""
    return f'data-start="{segment["start"]:.3f}" data-end="{segment["end"]:.3f}"'


def clock(seconds: float) -> str:
    """Write a time as minutes and seconds, such as 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
