"""What a run cannot do is told before anything is made, in a line."""

import re
from pathlib import Path

import pytest

from training_mac.recipe.file import load_stages
from training_mac.run.check import EVAL_METRICS, check_base, check_stages
from training_mac.run.folder import Run


VALIDATES = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
BEST = {**VALIDATES, "load_best_model_at_end": True}
SHARDS = {"train_data": "sounds-{000..009}.tar", "eval_data": None}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**VALIDATES, "eval_metrics": ["bleu", "cidre"]}, r"`eval_metrics`: no cidre; possible are bleu, .*spider"),
        ({**VALIDATES, "eval_metrics": ["sentence_similarity"]}, "`eval_metrics`: no sentence_similarity; possible"),
        ({**VALIDATES, "eval_metrics": ["meteor"]}, r"`eval_metrics`: meteor: METEOR needs"),
        (
            {**BEST, "metric_for_best_model": "cider"},
            r"no 'cider' with .*; possible are loss, bleu_1, .*cider_d, naming",
        ),
        ({**BEST, "eval_metrics": ["rouge_l"], "metric_for_best_model": "eval_bleu_4"}, "are loss, rouge_l, naming"),
        ({"objective": "tags", **VALIDATES}, "`eval_strategy` validates captions"),
        (
            {"objective": "tags", "max_text_tokens": 9},
            "`max_text_tokens` cuts texts; `objective: tags` learns from none",
        ),
        ({"max_text_tokens": 0}, "`max_text_tokens` is 0; expected at least 1"),
        ({"encoder": "frozen", "connector": "frozen", "language_model": "frozen"}, "nothing would train"),
        ({"stages": [{"encoder": "lora"}, {"encoder": "full"}]}, "'lora' in one stage and 'full' in another"),
        (
            {"stages": [{"objective": "tags", "imitate_teachers": True}, {"objective": "teacher"}]},
            "Stage 1: .*must come first",
        ),
        ({"average_checkpoints": 2}, "is for an encoder alone, not for `objective: captions`"),
        ({"objective": "tags", "average_checkpoints": 2}, "is 2, but `save_strategy` and `save_total_limit` keep 0"),
        (
            {"objective": "tags", "average_checkpoints": 2, "save_strategy": "epoch", "save_total_limit": 1},
            "is 2, but `save_strategy` and `save_total_limit` keep 1",
        ),
        (
            {"objective": "tags", "average_checkpoints": 2, "save_strategy": "best", "metric_for_best_model": "loss"},
            "`save_strategy: best` keeps nothing without validation",
        ),
        ({"language_model": "lora", "lora_rank": 0}, "`lora_rank` is 0; expected at least 1"),
        ({"language_model": "lora", "lora_dropout": 1.0}, "`lora_dropout` is 1.0; expected a share"),
        ({"language_model": "lora", "lora_alpha": 0.0}, "`lora_alpha` is 0.0; expected more than 0"),
        ({"base_audio_tower": "eat"}, "`base_audio_tower` would not be read beside `base_model`"),
        ({"vocab_size": 900}, "`vocab_size` would not be read beside `base_model`"),
        ({"base_model": None, "tokenizer": "words"}, "`vocab_size` would not be read beside `tokenizer`"),
        ({"model": {"connector_type": "spiral"}}, "`model.connector_type` is 'concat' in "),
        ({"prompt": "<|audio|>"}, "`prompt` is '<|audio|>'".replace("|", "[|]")),
        ({"encoding_mix": 0.6}, "`encoding_mix` is 0.6; expected 0 to 0.5"),
        ({"encoding_mix": 0.3}, "needs `cached_epochs`"),
        ({"cache_encodings": "kept"}, "needs `cached_epochs`"),
        ({"A_init_range": [0.1, 1.0]}, "`A_init_range` is for a new language model; .* has learnt"),
        ({"eval_data": "sounds-{000..009}.tar"}, "`eval_data`: Shards are streamed"),
        ({**SHARDS, "objective": "teacher"}, "`objective`: Shards are streamed"),
        ({**SHARDS, "cached_epochs": 1, "encoder": "frozen"}, "`cached_epochs`: Shards are streamed"),
        ({**SHARDS, "cache_features": "features"}, "`cache_features`: Shards are streamed"),
        ({**SHARDS, "train_sampling_strategy": "group_by_length"}, "`train_sampling_strategy`: Shards are streamed"),
        ({**SHARDS, "max_steps": -1}, "`max_steps` is missing"),
        ({**SHARDS, "base_model": None}, "tokenizer is made of all captions"),
        ({**SHARDS, "train_data": ["a.tar", "b.csv"]}, "cannot be mixed"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_its_field(
    base, write_recipe, monkeypatch, fields, message, tables
) -> None:
    monkeypatch.setenv("PATH", "")  # no Java
    with pytest.raises(ValueError, match=message):
        check_stages(load_stages([str(write_recipe(**{"base_model": str(base), **fields}))]), tables)


@pytest.mark.parametrize("best", ["loss", "eval_loss", "cider_d", "eval_naming_accuracy", "bleu_4", "length"])
def test_every_score_may_choose_the_best(base, write_recipe, best: str, tables) -> None:
    metrics = [name for name in EVAL_METRICS if name not in ("meteor", "spice", "spider")]
    fields = {**BEST, "eval_metrics": metrics, "metric_for_best_model": best}
    check_stages(load_stages([str(write_recipe(base_model=str(base), **fields))]), tables)


def test_naming_accuracy_needs_sources(base, write_recipe, manifest, tmp_path, tables) -> None:
    path = tmp_path / "unnamed.csv"
    path.write_text(f"audio,caption\n{manifest.parent / '0.wav'},the siren wails\n")
    fields = {"base_model": str(base), "eval_data": str(path), **BEST, "metric_for_best_model": "naming_accuracy"}
    with pytest.raises(ValueError, match=r"`naming`: no clip of `eval_data` has a `source` .* the 50 ESC-50"):
        check_stages(load_stages([str(write_recipe(**fields))]), tables)
    with pytest.raises(ValueError, match=r"no word lists 'esc'; there are esc50, everyday"):
        check_stages(load_stages([str(write_recipe(**fields, naming="esc"))]), tables)
    recipe = write_recipe(**fields, naming=None)
    with pytest.raises(ValueError, match="possible are loss, bleu_1, bleu_2, bleu_3, bleu_4, rouge_l, cider_d\\."):
        check_stages(load_stages([str(recipe)]), tables)


def test_towers_are_joined_without_reading_captions(write_recipe, monkeypatch, tables) -> None:
    """So that they may learn from shards, which no one reads to their end."""
    made: list = []
    monkeypatch.setattr("training_mac.run.folder.make_base", lambda *arguments: made.append(arguments))
    towers = {"base_audio_tower": "eat", "base_language_model": "mamba"}
    Run(load_stages([str(write_recipe(**SHARDS, **towers))])).begin(tables)
    [(_, prompt, texts, _)] = made
    assert prompt == "Describe the sound." and list(texts) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rat": 1}, "no field 'learning_rat'. Did you mean 'learning_rate'?"),
        ({"train_data": "nowhere.csv"}, "nowhere.csv: no such manifest."),
        ({"base_model": "nowhere"}, "nowhere"),
        ({"model": {"audio_config": {"hidden_size": "wide"}}}, "`model`: "),
        ({"A_init_range": [1, 0.1]}, "`A_init_range` is [1, 0.1]; expected two positive numbers"),
    ],
)
def test_mistakes_in_what_is_given_are_told_without_a_traceback(in_process, write_recipe, fields, message) -> None:
    ended = in_process("train.py", write_recipe(**fields))
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert any(line.startswith("mac-train: ") for line in ended.stderr.splitlines()) and message in ended.stderr


PATCHED = """
import runpy, sys
import training_mac.run.check
training_mac.run.check.check_stages = lambda stages, tables: stages.nowhere
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


def test_mistakes_in_the_code_keep_their_traceback(in_process, write_recipe: Path) -> None:
    ended = in_process("-c", PATCHED, write_recipe())
    assert ended.returncode == 1 and "Traceback" in ended.stderr and "AttributeError" in ended.stderr


@pytest.mark.parametrize("flag", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
@pytest.mark.parametrize("objective", ["tags", "teacher"])
def test_what_is_handed_on_whole_is_not_split(
    base, write_recipe, monkeypatch, flag: str, objective: str, tables
) -> None:
    """The parts of the tagger on one GPU would become the result in place of the model."""
    stages = load_stages([str(write_recipe(base_model=str(base), stages=[{"objective": objective}, {}]))])
    captions = load_stages([str(write_recipe(base_model=str(base)))])
    monkeypatch.setenv(flag, "true")
    with pytest.raises(ValueError, match=f"Stage 1: `objective: {objective}` cannot train under FSDP or DeepSpeed"):
        check_stages(stages, tables)
    check_stages(captions, tables)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"lora_targets": ["in_proj", "q_proj"]},
            "no q_proj to adapt; this model has in_proj, out_proj.",
        ),
        ({"lora_targets": []}, "`lora_targets`: no layer to adapt"),
        ({"encoder": "lora", "encoder_lora_targets": ["qvk"]}, "`encoder_lora_targets`: no qvk to adapt"),
    ],
)
def test_layers_to_adapt_are_there(base, write_recipe, fields: dict, message: str) -> None:
    stages = load_stages([str(write_recipe(base_model=str(base), language_model="lora", **fields))])
    with pytest.raises(ValueError, match=message):
        check_base(stages, str(base))


@pytest.mark.parametrize("name", ["nowhere", "user/nowhere", "runs/no/where", "./nowhere", "/no/where"])
def test_a_model_that_is_not_there_is_asked_for_once(base, write_recipe, monkeypatch, name: str, tables) -> None:
    asked: list[str] = []

    def model_info(self, repo_id, **options):
        asked.append(repo_id)
        raise OSError("no such model")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("processing_mac.MacProcessor.from_pretrained", lambda *_: asked.append("files"))
    with pytest.raises(ValueError, match=f"`base_model`: {re.escape(name)} is (not there|no folder here)"):
        check_stages(load_stages([str(write_recipe(base_model=name))]), tables)
    assert asked == ([name] if re.fullmatch(r"\w+(/\w+)?", name) else [])
