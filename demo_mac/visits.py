"""The answers in the form of the page's parts: text and pictures as HTML, in place of an error what went wrong."""

from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from processing_mac import AudioCaptioningPipeline

from .answers import describe, encode_flac, rank_labels
from .live import Listener, Room
from .pictures import draw_recording
from .words import LISTENING, SILENT, draw_ranking, list_live, offer_downloads, say, say_problem


class Answers:
    """
    Answers for all visitors of one model.

    Args:
        captioner: Pipeline of the model, which is loaded already.
    """

    def __init__(self, captioner: AudioCaptioningPipeline):
        self.captioner = captioner
        self.lock = Lock()  # one model, which works for one visitor at a time
        self.room = Room()

    def describe(self, path: str | None, prompt: str = "", origin: str = "") -> tuple[str, dict[str, Any] | None]:
        """Answer with the caption, or with what went wrong, and with what is drawn and played."""
        try:
            with self.lock:
                described = describe(self.captioner, path, prompt)
        except ValueError as error:
            return say_problem(str(error)), None
        extractor = self.captioner.processor.feature_extractor
        picture = draw_recording(described.waveform, extractor, described.segments)
        picture += offer_downloads(described.segments, Path(path or "").name)
        flac = encode_flac(described.waveform, extractor.sampling_rate)
        file = save_bytes_to_cache(flac, "heard.flac", cache_dir=get_upload_folder())
        note = " ".join([origin, *described.losses]).strip()
        return say(described.caption, note), {"sound": gr.FileData(path=file).model_dump(), "picture": picture}

    def rank(self, path: str | None, prompt: str, labels: str) -> str:
        """Answer with the probabilities of labels, or with what went wrong."""
        try:
            with self.lock:
                return draw_ranking(rank_labels(self.captioner, path, prompt, labels))
        except ValueError as error:
            return say_problem(str(error))

    def listen(self, listener: Listener | None, event: gr.EventData) -> tuple[str, Listener]:
        """
        Hear the next chunk of a microphone, the fields of `event`, and answer with all that was heard.

        A problem in the answer tells the page to stop.
        """
        old = listener if getattr(event, "first", False) else None  # a page that was loaded anew never ended it
        if listener is None or old is not None:
            listener = Listener(self.captioner)
        try:
            with self.lock:
                if old is not None:
                    self.room.leave(old)
                self.room.admit(listener)
                listener.hear(getattr(event, "samples", None), getattr(event, "rate", None))
        except ValueError as error:
            listener.problem = say_problem(str(error))
        return listener.problem + (list_live(listener.segments) if listener.segments else LISTENING), listener

    def end(self, listener: Listener | None) -> tuple[str, None]:
        """Caption what is left of a microphone's sound, and answer with all that was heard and with its files."""
        if listener is None:
            return SILENT, None
        with self.lock:
            self.room.leave(listener)
            listener.end()
        if not listener.segments:
            return listener.problem or SILENT, None
        files = offer_downloads(listener.segments, "live")
        return listener.problem + list_live(listener.segments) + files, None
