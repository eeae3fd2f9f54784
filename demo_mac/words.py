"""What the page says in words, as HTML: captions, problems, rankings, what is heard live, and files to take home."""

import base64
import html
from pathlib import Path
from typing import Any

from processing_mac.segment_files_mac import write_segments

from .pictures import clock


# Formats of `write_segments` that the page offers, with the ends of their files' names.
DOWNLOADS = {"srt": ".srt", "vtt": ".vtt", "csv": ".csv", "audacity": ".txt"}
LONG_CAPTION = 100  # characters above which a caption is written smaller, and scrolls if it is longer still
SHOWN_LIVE = 200  # latest segments that the live page shows; the downloads have all of them

EMPTY = '<p class="hint">Open a file, record a sound or choose an example: what the model hears will stand here.</p>'
UNRANKED = '<p class="hint">The labels, the likeliest first, will stand here.</p>'
SILENT = '<p class="hint">Press Listen: what the model hears will stand here.</p>'
LISTENING = BUSY = '<p class="busy">Listening …</p>'
REFUSED = (
    '<p class="problem">The browser lends this page no microphone: there is none, it was not allowed, or the address '
    "of the page begins with http:// and is not this machine's own.</p>"
)
FAILED = '<p class="problem">The page did not answer. Please try again in a minute.</p>'


def say(caption: str, note: str = "") -> str:
    """Write a caption, with a note on what it is of if there is more to know."""
    told = f'<span class="note">{html.escape(note)}</span>' if note else ""
    # A long one scrolls: who has no mouse gets there by the tab key.
    kind = 'class="said long" tabindex="0"' if len(caption) > LONG_CAPTION else 'class="said"'
    return f"{told}<p {kind}>{html.escape(caption)}</p>"


def say_problem(message: str) -> str:
    """Write what went wrong. The text may hold a file's name, which anybody may choose."""
    return f'<p class="problem">{html.escape(message)}</p>'


def draw_ranking(probabilities: dict[str, float]) -> str:
    """Draw the probability of each label, the greatest first."""
    rows = "".join(
        f'<li><span>{html.escape(label)}</span> <b>{percent(share)}</b><i style="width:{share:.2%}"></i></li>'
        for label, share in sorted(probabilities.items(), key=lambda pair: -pair[1])
    )
    return f'<ol class="ranking">{rows}</ol>'


def percent(share: float) -> str:
    """Write a probability."""
    return f"{share:.0%}" if share >= 0.01 else "&lt; 1%"


def offer_downloads(segments: list[dict[str, Any]], recording: str) -> str:
    """
    Offer the segments as files. They are written into the links, so that the server keeps none.

    Args:
        segments: `start` and `end` in seconds and `caption` of each.
        recording: Name of the recording, after which the files are named.
    """
    links = "".join(
        f'<a download="{html.escape(Path(recording).stem)}{suffix}" href="data:text/plain;charset=utf-8;base64,'
        f'{base64.b64encode(write_segments(segments, format).encode()).decode()}">{format}</a>'
        for format, suffix in DOWNLOADS.items()
    )
    return f'<p class="downloads"><span>Download</span> {links}</p>'


def list_live(segments: list[dict[str, Any]]) -> str:
    """
    List what was heard until now.

    The page shows the latest first, but here it comes last: what changes before it would be read aloud once more.
    """
    rows = "".join(
        f"<li><time>{clock(segment['start'])}–{clock(segment['end'])}</time> "
        f"<span>{html.escape(segment['caption'])}</span></li>"
        for segment in segments[-SHOWN_LIVE:]
    )
    return f'<ol class="heard">{rows}</ol>'
