"""
transformers' PipelineTesterMixin on MAC's folders.

The distribution lacks the tests of the single tasks and the tiny models of the Hub. So the models are folders of ours,
laid out as the mixin expects a user's own, and the classes below say what a task's answer looks like. Loading, batches
with an unfinished one at their end and the skipping are the mixin's. Left out are three tasks of audio and text:
`feature-extraction` asks for a tokenizer, `automatic-speech-recognition` for CTC or an encoder and a decoder, and
`zero-shot-audio-classification` for two encoders that meet in one space.
"""

import json
import os
import sys
import unittest
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import soundfile
from transformers import TokenizersBackend, pipeline
from transformers_mixins.common_tests import common_tests

from modeling_mac import EatConfig, EatForAudioClassification, MacForConditionalGeneration
from processing_mac import DEFAULT_MODEL, MacFeatureExtractor, MacProcessor


FOLDER = Path(mkdtemp())
EAT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PARTS = {
    MacForConditionalGeneration: {"tokenizer_classes": ["TokenizersBackend"], "processor_classes": ["MacProcessor"]},
    EatForAudioClassification: {"tokenizer_classes": [], "processor_classes": ["MacFeatureExtractor"]},
}
SOUNDS = [np.random.default_rng(0).uniform(-0.5, 0.5, length).astype(np.float32) for length in (8000, 20_000)]
EXAMPLES = [{"array": sound, "sampling_rate": 16_000} for sound in SOUNDS]


def make_models() -> None:
    """The models, as `TRANSFORMERS_TINY_MODEL_PATH/KIND/CLASS`, and their list."""
    (FOLDER / "reports").mkdir()
    summary = {model.__name__: parts for model, parts in PARTS.items()}
    (FOLDER / "reports" / "tiny_model_summary.json").write_text(json.dumps(summary))
    (FOLDER / "mac").mkdir()
    (FOLDER / "mac" / "MacForConditionalGeneration").symlink_to(Path(DEFAULT_MODEL).resolve())
    folder = FOLDER / "mac_eat" / "EatForAudioClassification"
    EatForAudioClassification(EatConfig(**EAT, num_labels=3)).save_pretrained(folder)
    MacFeatureExtractor().save_pretrained(folder)


class Task(unittest.TestCase):
    """What the mixin asks of a task's own tests."""

    task: str

    def get_test_pipeline(self, model: Any, tokenizer: Any = None, dtype: str = "float32", **parts: Any) -> tuple:
        if "processor" not in parts:
            parts["tokenizer"] = tokenizer
        # Beside a tokenizer of its own, transformers' pipeline would not take the processor's feature extractor.
        return pipeline(self.task, model=model, dtype=dtype, **parts), self.examples()

    def examples(self) -> list[Any]:
        return [dict(example) for example in EXAMPLES]

    def run_pipeline_test(self, asked: Any, examples: list[Any]) -> None:
        answers = asked(examples)
        assert len(answers) == len(examples)
        for answer in answers:
            self.check(answer)
        self.check(asked(examples[0]))

    def check(self, answer: Any) -> None:
        raise NotImplementedError


class AudioClassificationPipelineTests(Task):
    task = "audio-classification"

    def check(self, answer: Any) -> None:
        assert {line["label"] for line in answer} == {"LABEL_0", "LABEL_1", "LABEL_2"}
        assert abs(sum(line["score"] for line in answer) - 1) < 1e-4


class AnyToAnyPipelineTests(Task):
    task = "any-to-any"

    def examples(self) -> list[Any]:
        files = [str(FOLDER / f"{length}.wav") for length in map(len, SOUNDS)]
        for file, sound in zip(files, SOUNDS, strict=True):
            soundfile.write(file, sound, 16_000)
        return [{"text": "<|audio|>Describe the sound.\n", "audio": file} for file in files]

    def check(self, answer: Any) -> None:
        [line] = answer
        assert isinstance(line["generated_text"], str) and line["generated_text"]


class AudioCaptioningPipelineTests(Task):
    task = "audio-captioning"

    def check(self, answer: Any) -> None:
        [line] = answer
        assert set(line) == {"caption"} and line["caption"]


TASKS = (AudioClassificationPipelineTests, AnyToAnyPipelineTests, AudioCaptioningPipelineTests)
make_models()
with patch.dict(os.environ, TRANSFORMERS_TINY_MODEL_PATH=str(FOLDER)):
    mixin = common_tests("test_pipeline_mixin")
own = ModuleType("mac_pipeline_tests")
vars(own).update({task.__name__: task for task in TASKS})
mixin.pipeline_test_mapping |= {task.task: {"test": f"mac_pipeline_tests.{task.__name__}"} for task in TASKS}


class TestPipelines(mixin.PipelineTesterMixin, unittest.TestCase):
    pipeline_model_mapping = {
        "audio-captioning": MacForConditionalGeneration,
        "any-to-any": MacForConditionalGeneration,
        "audio-classification": EatForAudioClassification,
    }

    def setUp(self) -> None:
        # The mixin looks for classes by their names in transformers itself.
        classes = {"MacFeatureExtractor": MacFeatureExtractor, "MacProcessor": MacProcessor}
        for known in (
            patch.dict(sys.modules, mac_pipeline_tests=own),
            patch.dict(vars(mixin.transformers_module), classes | {"TokenizersBackend": TokenizersBackend}),
            patch.dict(mixin.PROCESSOR_MAPPING_NAMES, mac="MacProcessor"),
        ):
            known.start()
            self.addCleanup(known.stop)

    def test_pipeline_audio_captioning(self) -> None:
        self.run_task_tests(task="audio-captioning")

    def test_no_model_was_missed(self) -> None:
        """The mixin skips a model that it cannot load; here each must load."""
        with patch.object(self, "skipTest", side_effect=AssertionError):
            for task in self.pipeline_model_mapping:
                self.run_task_tests(task=task)
