"""
CLAP-Refine (SLAM-AAC, Chen et al., 2024): search with several numbers of beams, keep what fits the recording best.

The judge is a CLAP model, which embeds sounds and sentences in one space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor

from evaluation_mac.metrics.text_encoder import CLAP, TextEncoder
from processing_mac import AudioCaptioningPipeline
from processing_mac.audio_mac import load_waveform


BEAMS = range(2, 9)


class Clap(TextEncoder):
    """
    Sounds and sentences -> vectors of length 1 in one space.

    Args:
        name: folder or Hub name of a checkpoint of transformers' `ClapModel`.

    Raises:
        ValueError: it cannot be loaded, or does not hear.
    """

    def __init__(self, name: str = CLAP):
        super().__init__(name)
        if not hasattr(self.model, "get_audio_features"):
            raise ValueError(f"{name} is a {self.model.config.model_type!r} model; expected a CLAP, which hears too")
        self.extractor = AutoFeatureExtractor.from_pretrained(name)

    @torch.inference_mode()
    def embed_audio(self, audio: str) -> np.ndarray:
        """(width,) of one recording. CLAP hears 10 s, drawn at random from more: a longer one is a mean of pieces."""
        waveform = load_waveform(audio, target_rate=self.extractor.sampling_rate)
        pieces = np.array_split(waveform, -(-len(waveform) // self.extractor.nb_max_samples))
        features = self.extractor(pieces, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        embeddings = self.model.get_audio_features(**features.to(self.device)).pooler_output.float()
        return torch.nn.functional.normalize(embeddings.mean(dim=0), dim=-1).cpu().numpy()


@dataclass(frozen=True)
class ClapRefine:
    """
    A way to choose captions. Recording and prompt are read once, whatever the number of searches.

    Args:
        clap: Judge.
        source: "searches": the best of a search with 2, 3 ... 8 beams each; "nbest": the best of one search.
        num_beams: Beams of the one search, and so the number of its candidates; 8 if None.
    """

    clap: Clap
    source: str = "searches"
    num_beams: int | None = None

    @property
    def searches(self) -> list[dict[str, int]]:
        """Arguments of `generate` of each search."""
        if self.source == "nbest":
            best = self.num_beams or BEAMS[-1]
            return [{"num_beams": best, "num_return_sequences": best}]
        return [{"num_beams": beams, "num_return_sequences": 1} for beams in BEAMS]

    def caption(self, captioner: AudioCaptioningPipeline, audio: str) -> dict[str, Any]:
        """One recording's `caption`, and the `candidates` it is of with `similarities`, cosines with the recording."""
        candidates = list(chain(*captioner.search(audio, self.searches)))
        caption, similarities = self.choose(audio, candidates)
        return {"caption": caption, "candidates": candidates, "similarities": similarities}

    def choose(self, audio: str, candidates: Sequence[str]) -> tuple[str, list[float]]:
        """The candidate whose embedding is closest to the recording's, of equals the first; and all their cosines."""
        similarities = self.clap.embed_text(candidates) @ self.clap.embed_audio(audio)
        return candidates[int(np.argmax(similarities))], [round(float(one), 4) for one in similarities]
