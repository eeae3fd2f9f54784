"""What a stage asks of its data, in one place."""

import json
from functools import lru_cache
from typing import Any

import torch

from processing_mac import MacFeatureExtractor
from processing_mac.dataset_mac import Clip, read_manifest
from training_mac.data_recipe import DataRecipe
from training_mac.scenes import SceneDataset, load_log_mels


def read_training_texts(data: DataRecipe) -> list[str]:
    """Every wording that training may draw: what a new tokenizer is made from."""
    clips = read_manifest(data.train_manifest, data.audio_root)
    return [text for clip in clips for text in (*clip.captions, *clip.phrases)]


def read_eval_clips(data: DataRecipe) -> list[Clip]:
    """The recordings to validate on, with all their references; none if the recipe names none."""
    return [] if data.eval_manifest is None else read_manifest(data.eval_manifest, data.audio_root)


def make_training_set(data: DataRecipe, processor: Any, seed: int) -> SceneDataset:
    """The examples of a stage; every random choice derives from seed, epoch and row."""
    clips, log_mels = load_recordings(
        data.train_manifest, data.audio_root, processor.feature_extractor.to_json_string()
    )
    return SceneDataset(
        clips, log_mels, processor.feature_extractor, data.join_probability, data.overlay_probability, seed
    )


@lru_cache(maxsize=1)
def load_recordings(
    manifest: str, audio_root: str | None, extractor_settings: str
) -> tuple[list[Clip], list[torch.Tensor]]:
    """The manifest and its log-mels, kept for the stages that follow: their extractors differ by identity only."""
    extractor = MacFeatureExtractor.from_dict(json.loads(extractor_settings))
    clips = read_manifest(manifest, audio_root)
    return clips, load_log_mels(clips, extractor, extractor.window_frames)
