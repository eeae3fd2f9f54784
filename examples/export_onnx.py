"""Export MAC to ONNX: `python examples/export_onnx.py onnx-folder [MODEL]`; `caption_onnx.py` then captions with it.

Needs the extra `onnx`: pip install mamba-audio-captioning[onnx]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor
from transformers.exporters import OnnxConfig, OnnxExporter

import modeling_mac  # noqa: F401  (registers the model)
from processing_mac import DEFAULT_MODEL
from processing_mac.feature_extraction_mac import mel_filters


def export(model_name: str, folder: Path) -> None:
    """Write encoder, connector, language model, head and decoding step, and beside them what reads and writes text."""
    model = AutoModelForMultimodalLM.from_pretrained(model_name, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model_name)
    seconds = np.random.default_rng(0).normal(size=(2, 16_000)).astype(np.float32)
    inputs = dict(processor(audio=list(seconds), sampling_rate=16_000))  # two clips: a batch of one would stay one
    OnnxExporter().export_for_generation(model, inputs, OnnxConfig(dynamic=True)).save_pretrained(folder)
    embeddings = model.get_input_embeddings().weight.detach().numpy()
    np.savez(folder / "arrays.npz", embeddings=embeddings, mel_filters=mel_filters(128, 16_000).numpy())
    processor.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    generation = model.generation_config
    settings = {
        "prompt": processor.write_prompt(processor.default_prompt),  # `<|audio|>` stands for the clip
        "window": processor.expand_audio(processor.audio_token, 1),
        "audio_token_id": processor.audio_token_id,
        "eos_token_id": generation.eos_token_id,
        "suppress_tokens": generation.suppress_tokens or [],
        "max_new_tokens": generation.max_new_tokens,
        "mean": processor.feature_extractor.mean,
        "scale": processor.feature_extractor.scale,
    }
    (folder / "captioning.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    export(arguments.model, arguments.folder)
