"""Vectors of sentences are what the encoders say of each sentence alone."""

import numpy as np
import pytest
import torch
from transformers import BertModel, ClapModel

from evaluation_mac.metrics.text_encoder import TextEncoder


def ids(words: list[str], sentence: str) -> torch.Tensor:
    return torch.tensor([[words.index(word) for word in sentence.split()]])


def test_a_sentence_encoder_is_averaged_over_tokens(bert_folder, encoder_words):
    sentences = ["a dog barks", "rain", "a dog barks"]
    model = BertModel.from_pretrained(bert_folder).eval()
    means = [model(ids(encoder_words, text)).last_hidden_state[0].mean(dim=0) for text in sentences]
    expected = torch.nn.functional.normalize(torch.stack(means), dim=-1).detach().numpy()
    np.testing.assert_allclose(TextEncoder(bert_folder).embed_text(sentences), expected, atol=1e-5)


def test_clap_is_asked_for_its_text_features(clap_folder, encoder_words):
    sentences = ["a dog barks", "rain"]
    model = ClapModel.from_pretrained(clap_folder).eval()
    expected = [
        model.get_text_features(ids(encoder_words, text)).pooler_output[0].detach().numpy() for text in sentences
    ]
    np.testing.assert_allclose(TextEncoder(clap_folder).embed_text(sentences), expected, atol=1e-5)


def test_an_encoder_that_is_not_there():
    with pytest.raises(ValueError, match="nowhere/at/all cannot be loaded"):
        TextEncoder("nowhere/at/all")
