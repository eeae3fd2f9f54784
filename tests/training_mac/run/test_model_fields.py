"""What a recipe's `model` says is done, or refused before anything is trained."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from modeling_mac import MacConfig, MacForConditionalGeneration
from training_mac.recipe.fields import Recipe
from training_mac.run.building import join_towers, load_base
from training_mac.run.model_fields import check_model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"connector_type": "spiral"},
            "`model.connector_type` is 'concat' in BASE, whose weights were learnt",
        ),
        ({"connector_type": "time_major"}, "For a new connector give `base_audio_tower` and `base_language_model`"),
        ({"audio_config": {"num_attention_heads": 4}}, "`model.audio_config.num_attention_heads` is 2 in"),
        ({"text_config": {"initializer_range": 0.5}}, "`model.text_config.initializer_range` is 0.02 in"),
        ({"text_config": {"model_type": "gpt_neox"}}, "GPTNeoXConfig|`model.text_config.model_type` is 'mamba2' in"),
        ({"conector_type": "concat"}, "MacConfig has no field 'conector_type'. Did you mean 'connector_type'?"),
        ({"audio_config": {"drop_path": 0.1}}, "EatConfig has no field 'drop_path'. Did you mean 'drop_path_rate'?"),
        ({"text_config": {"dropout": 0.1}}, "Mamba2Config has no field 'dropout'."),
        ({"audio_config": {"drop_path_rate": 1.5}}, "drop_path_rate` is 1.5; expected a share"),
        ({"audio_config": 7}, "`model.audio_config` is 7; expected the fields of a configuration"),
    ],
)
def test_what_a_base_model_cannot_take_is_refused(base: Path, model: dict, message: str) -> None:
    expected = "|".join(re.escape(one.replace("BASE", str(base))) for one in message.split("|"))
    with pytest.raises(ValueError, match=expected):
        check_model(Recipe(base_model=str(base), model=model))


def test_what_a_base_model_can_take_is_in_the_model(base: Path, write_recipe, train) -> None:
    """What is left out while training changes no weight's meaning; what the base has already is no change."""
    model = {"connector_type": "concat", "audio_config": {"drop_path_rate": 0.25, "hidden_size": 32}}
    fields = {"base_model": str(base), "connector": "frozen", "language_model": "frozen", "max_steps": 2}
    folder = train(write_recipe(**fields, model=model))
    assert MacConfig.from_pretrained(folder).audio_config.drop_path_rate == 0.25
    assert load_base(str(base))[0].config.audio_config.drop_path_rate == 0.0
    plain = train(write_recipe(**fields, output_dir=str(folder.parent / "plain")))
    name = "model.audio_tower.layers.1.mlp.fc1.weight"
    assert not load_file(folder / "model.safetensors")[name].equal(load_file(plain / "model.safetensors")[name])
    assert json.loads((folder / "run.json").read_text())[0]["model"] == model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"audio_config": {"hiden_size": 32}}, "EatConfig has no field 'hiden_size'. Did you mean 'hidden_size'?"),
        ({"text_config": {"num_head": 8}}, "Mamba2Config has no field 'num_head'. Did you mean 'num_heads'?"),
        (
            {"text_config": {"model_type": "mamba3000"}},
            "model_type`: transformers has no 'mamba3000'",
        ),
        ({"text_config": {"vocab_size": 99}}, "`model.text_config.vocab_size` comes from the tokenizer"),
        ({"audio_token_id": 3}, "`model.audio_token_id` comes from the tokenizer"),
    ],
)
def test_unknown_names_are_refused_for_a_new_model_too(model: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_model(Recipe(model=model))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"audio_config": {"hidden_size": 64}}, "`model.audio_config.hidden_size` is what the pretrained towers say"),
        ({"tie_word_embeddings": False}, "`model.tie_word_embeddings` is what the pretrained towers say"),
        ({"connector_typ": "concat"}, "MacConfig has no field 'connector_typ'. Did you mean 'connector_type'?"),
    ],
)
def test_towers_keep_what_they_have(model: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_model(Recipe(base_audio_tower="eat", base_language_model="mamba", model=model))
    check_model(Recipe(base_audio_tower="eat", base_language_model="mamba", model={"connector_type": "time_major"}))
    dropping = {"audio_config": {"drop_path_rate": 0.1}}
    check_model(Recipe(base_audio_tower="eat", base_language_model="mamba", model=dropping))


def test_towers_take_what_training_drops_out(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict = {}

    def from_towers(*towers, **config):
        given.update(config)
        return load_base(str(base))[0]

    monkeypatch.setattr(MacForConditionalGeneration, "from_towers", from_towers)
    model = {"connector_type": "concat", "audio_config": {"drop_path_rate": 0.1}}
    joined, _ = join_towers(Recipe(base_audio_tower="eat", base_language_model=str(base), model=model), [])
    assert joined.config.audio_config.drop_path_rate == 0.1
    assert given["connector_type"] == "concat" and "audio_config" not in given
