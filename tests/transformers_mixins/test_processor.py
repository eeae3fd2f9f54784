"""transformers' ProcessorTesterMixin on MAC's processor."""

import tempfile
import unittest

import numpy as np
from transformers import AutoTokenizer
from transformers_mixins.common_tests import common_tests, leave_out

from processing_mac import DEFAULT_MODEL, MacFeatureExtractor, MacProcessor


ProcessorTesterMixin = common_tests("test_processing_common").ProcessorTesterMixin


NEEDS_AUDIO = "calls with text alone; MAC's text always speaks of a clip"
AUTO_MAP = "a saved processor names its remote code, which the unsaved one does not"


@leave_out(
    {
        "test_apply_chat_template_audio": NEEDS_AUDIO,
        "test_apply_chat_template_assistant_mask": NEEDS_AUDIO,
        "test_call_arguments_default_none": "`loss_on` says by its default what it does",
        "test_processor_from_and_save_pretrained": AUTO_MAP,
        "test_tokenizer_decode_defaults": "a caption is decoded without special tokens",
    }
)
class TestMacProcessor(ProcessorTesterMixin, unittest.TestCase):
    processor_class = MacProcessor
    audio_unstructured_max_length = 117  # a window takes 64 tokens, and some the prompt

    @classmethod
    def setUpClass(cls):
        cls.tmpdirname, cls.full_tmpdirname = tempfile.mkdtemp(), None
        processor = MacProcessor(MacFeatureExtractor(), AutoTokenizer.from_pretrained(DEFAULT_MODEL))
        cls._setup_test_attributes(processor)
        processor.save_pretrained(cls.tmpdirname)

    def prepare_audio_inputs(self, batch_size: int | None = None) -> list[dict]:
        """Clips that know their rate: bare arrays are refused."""
        return [{"array": np.random.uniform(-0.5, 0.5, 8000), "sampling_rate": 16_000}] * (batch_size or 1)
