"""transformers' ModelTesterMixin on MAC with three kinds of language models, and on EAT."""

import unittest
from unittest.mock import patch

import torch
from transformers import AutoConfig
from transformers.models.auto import modeling_auto
from transformers_mixins.common_tests import common_tests, leave_out

from modeling_mac import (
    EatConfig,
    EatForAudioClassification,
    EatModel,
    MacConfig,
    MacForConditionalGeneration,
    MacModel,
)


ModelTesterMixin = common_tests("test_modeling_common").ModelTesterMixin
AUDIO = EatConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, window_frames=32, num_mel_bins=32
)
TEXT = {
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "gpt_neox": {"num_attention_heads": 2, "intermediate_size": 64},
    "bamba": {
        "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 64, "attn_layer_indices": [1],
        "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8,
    },
}  # fmt: skip


class MacTester:
    """A MAC of two layers a tower, and three clips of one window."""

    batch_size, seq_length, num_hidden_layers, hidden_size, is_training = 3, 8, 2, 32, True
    num_attention_heads, vocab_size = 2, 99

    def __init__(self, model_type: str):
        self.model_type = model_type

    def get_config(self) -> MacConfig:
        text = AutoConfig.for_model(
            self.model_type, vocab_size=99, hidden_size=32, num_hidden_layers=2, pad_token_id=0, bos_token_id=0,
            eos_token_id=0, **TEXT[self.model_type],
        )  # fmt: skip
        return MacConfig(audio_config=AUDIO.to_dict(), text_config=text, audio_token_id=70, tie_word_embeddings=False)

    def prepare_config_and_inputs_for_common(self) -> tuple[MacConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        prompt = torch.randint(1, 60, (self.batch_size, self.seq_length - 2))
        input_ids = torch.cat([torch.full((self.batch_size, config.audio_tokens_per_window), 70), prompt], dim=1)
        return config, {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "input_features": torch.randn(self.batch_size, 32, 32),
        }


class EatTester:
    batch_size, seq_length, num_hidden_layers, hidden_size, is_training = 3, 5, 2, 16, True
    num_attention_heads = 2

    def get_config(self) -> EatConfig:
        return EatConfig(**AUDIO.to_dict())

    def prepare_config_and_inputs_for_common(self) -> tuple[EatConfig, dict[str, torch.Tensor]]:
        return self.get_config(), {"input_features": torch.randn(self.batch_size, 32, 32)}


NO_GENERATION_TESTS = {"test_generation_tester_mixin_inheritance": "those tests are not in the distribution"}
NO_AUDIO = "feeds `input_ids` with audio tokens and leaves the audio out"


class Case(ModelTesterMixin):
    """Our classes under the names by which those tests know what has a loss."""

    def setUp(self) -> None:
        for mapping, names in (
            (modeling_auto.MODEL_MAPPING_NAMES, {"mac": "MacModel", "mac_eat": "EatModel"}),
            (modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES, {"mac_eat": "EatForAudioClassification"}),
        ):
            known = patch.dict(mapping, names)
            known.start()
            self.addCleanup(known.stop)


class MacCase(Case):
    all_model_classes = (MacModel, MacForConditionalGeneration)
    _is_composite = True
    model_type: str

    def setUp(self) -> None:
        super().setUp()
        self.model_tester = MacTester(self.model_type)


@leave_out(
    {
        **NO_GENERATION_TESTS,
        "test_can_capture_specific_layers_hidden_states": "transformers' Mamba-2 keeps all layers or none",
    }
)
class TestMamba2(MacCase, unittest.TestCase):
    model_type, has_attentions = "mamba2", False


@leave_out(
    {
        **NO_GENERATION_TESTS,
        "test_eager_matches_sdpa_inference": NO_AUDIO,
        "test_bc_cache_name_forward": "the cache never had another name here",
        "test_model_rope_scaling": "draws ids at random, `<|audio|>` among them",
        "test_model_rope_with_partial_rotation": "draws ids at random, `<|audio|>` among them",
    }
)
class TestGptNeox(MacCase, unittest.TestCase):
    model_type = "gpt_neox"


@leave_out(
    {
        **NO_GENERATION_TESTS,
        "test_eager_matches_sdpa_inference": NO_AUDIO,
        "test_bc_cache_name_forward": "the cache never had another name here",
        "test_model_rope_scaling": "draws ids at random, `<|audio|>` among them",
        "test_model_rope_with_partial_rotation": "draws ids at random, `<|audio|>` among them",
        "test_attention_outputs": "expects attention in every layer; a hybrid has it in some",
    }
)
class TestBamba(MacCase, unittest.TestCase):
    model_type = "bamba"


@leave_out({"test_model_get_set_embeddings": "its input embedding is a convolution over patches"})
class TestEat(Case, unittest.TestCase):
    all_model_classes = (EatModel, EatForAudioClassification)
    test_resize_embeddings = False

    def setUp(self) -> None:
        super().setUp()
        self.model_tester = EatTester()
