"""Sentence similarity with a tiny random encoder."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from evaluation_mac import score_captions


WORDS = ["[PAD]", "[UNK]", "a", "the", "dog", "cat", "barks", "sleeps", "is", "barking", "loudly", "in", "rain"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The folder of a two-layer BERT."""
    folder = str(tmp_path_factory.mktemp("encoder"))
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return folder


def embed(encoder: str, caption: str) -> torch.Tensor:
    """The mean state of a caption's tokens, one caption at a time and so without padding."""
    ids = torch.tensor([[WORDS.index(word) for word in caption.split()]])
    return BertModel.from_pretrained(encoder).eval()(ids).last_hidden_state[0].mean(dim=0).detach()


def test_is_the_mean_cosine_of_mean_pooled_tokens(encoder):
    candidates = ["a dog barks", "the cat sleeps loudly in the rain"]
    references = [["the dog is barking", "a dog"], ["the cat sleeps loudly in the rain"]]
    result = score_captions(candidates, references, ["sentence_similarity"], sentence_encoder=encoder)
    expected = torch.cosine_similarity(
        embed(encoder, candidates[0]), torch.stack([embed(encoder, text) for text in references[0]]), dim=-1
    )
    scores = [row["sentence_similarity"] for row in result["per_caption"]]
    assert scores == pytest.approx([expected.mean().item(), 1.0], abs=1e-5)
    assert abs(scores[0] - 1.0) > 1e-3
    assert result["corpus"]["sentence_similarity"] == pytest.approx(sum(scores) / 2)


def test_more_captions_than_a_batch(encoder):
    captions = [f"a dog {'barks ' * times}" for times in range(150)]
    result = score_captions(captions, [[text] for text in captions], ["sentence_similarity"], sentence_encoder=encoder)
    assert [row["sentence_similarity"] for row in result["per_caption"]] == pytest.approx([1.0] * 150, abs=1e-5)


def test_an_encoder_that_is_not_there(tmp_path):
    missing = str(tmp_path / "nothing")
    result = score_captions(["a"], [["a"]], ["bleu", "sentence_similarity"], sentence_encoder=missing)
    assert "bleu_1" in result["corpus"]
    assert missing in result["skipped"]["sentence_similarity"]
