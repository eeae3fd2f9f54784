"""A recipe on Whisper's encoder: its front end goes with the model, and it learns to write what is said."""

import json

from transformers import AutoProcessor


WHISPER = {
    "connector_type": "stack", "stack_size": 10,
    "audio_config": {
        "model_type": "mac_whisper", "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64, "max_source_positions": 100,
    },
    "text_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_heads": 8, "head_dim": 8, "state_size": 16,
                    "n_groups": 1},
}  # fmt: skip


def losses(folder) -> list[float]:
    state = json.loads(next(folder.rglob("trainer_state.json")).read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_a_new_model_learns_on_whispers_front_end(write_recipe, train, tmp_path):
    fields = {"prompt": "Transcribe the speech.", "cache_features": str(tmp_path / "cache"), "eval_metrics": ["wer"]}
    folder = train(write_recipe(model=WHISPER, max_steps=12, learning_rate=1e-2, eval_strategy="no", **fields))
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.feature_extractor.front_end == "whisper"
    assert processor.feature_extractor.window_frames == 200
    assert processor.audio_tokens_per_window == 10
    assert processor.default_prompt == "Transcribe the speech."
    assert json.loads((folder / "config.json").read_text())["audio_config"]["model_type"] == "mac_whisper"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["whisper-log-mel-v2-80-bins-16000-hz"]
    assert losses(folder)[-1] < 0.7 * losses(folder)[0]
