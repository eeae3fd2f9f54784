"""Asks a model about clips as the options say, and brings clips and answers together."""

import argparse
from collections.abc import Sequence
from typing import Any

from evaluation_mac.metrics.answers import caption_of
from evaluation_mac.protocols.captioning import caption_asker
from evaluation_mac.protocols.clap_refine import ClapRefine
from evaluation_mac.protocols.clip_records import collect_records
from evaluation_mac.protocols.retrieval import likelihood_asker, read_losses
from processing_mac import AudioCaptioningPipeline


class Collector:
    """Asks the model about clips and keeps, of those that could be read, the clip and its record."""

    def __init__(self, options: argparse.Namespace, captioner: AudioCaptioningPipeline):
        self.options = options
        self.captioner = captioner
        self.failed: dict[str, str] = {}

    def captions(self, clips: Sequence[Any], refine: ClapRefine | None = None) -> tuple[list[Any], list[str]]:
        """The clips with a caption, and the captions; with `refine` the file holds their candidates, too."""
        ask = caption_asker(self.captioner, self.options.batch_size, refine)
        fields = ["caption", "candidates", "similarities"] if refine else ["caption"]
        read, records = self.collect("captions.csv", fields, clips, ask, self.options.batch_size)
        return read, [caption_of(record["caption"]) for record in records]

    def losses(self, clips: Sequence[Any], texts: Sequence[str]) -> tuple[list[Any], Any]:
        """The clips with losses, and the (clips, texts) losses."""
        ask = likelihood_asker(self.captioner, texts, self.options.prompt)
        read, records = self.collect("losses.csv", ["losses"], clips, ask, 1)
        return read, read_losses(records)

    def collect(
        self, name: str, fields: list[str], clips: Sequence[Any], ask: Any, batch_size: int
    ) -> tuple[list, list]:
        """The clips with a record, and their records; nothing on processes other than the main one."""
        audio = [clip.audio for clip in clips]
        records, self.failed = collect_records(self.options.output / name, fields, audio, ask, batch_size)
        read = [clip for clip in clips if clip.audio in records]
        return read, [records[clip.audio] for clip in read]
