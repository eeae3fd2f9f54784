"""Sentence similarity with a tiny random encoder."""

import pytest
import torch
from transformers import BertModel

from evaluation_mac import score_captions


def embed(encoder: str, words: list[str], caption: str) -> torch.Tensor:
    """The mean state of a caption's tokens, one caption at a time and so without padding."""
    ids = torch.tensor([[words.index(word) for word in caption.split()]])
    return BertModel.from_pretrained(encoder).eval()(ids).last_hidden_state[0].mean(dim=0).detach()


def test_is_the_mean_cosine_of_mean_pooled_tokens(bert_folder, encoder_words):
    candidates = ["a dog barks", "the cat sleeps loudly in the rain"]
    references = [["the dog is barking", "a dog"], ["the cat sleeps loudly in the rain"]]
    result = score_captions(candidates, references, ["sentence_similarity"], sentence_encoder=bert_folder)
    others = [embed(bert_folder, encoder_words, text) for text in references[0]]
    expected = torch.cosine_similarity(
        embed(bert_folder, encoder_words, candidates[0]),
        torch.stack(others),
        dim=-1,
    )
    scores = [row["sentence_similarity"] for row in result["per_caption"]]
    assert scores == pytest.approx([expected.mean().item(), 1.0], abs=1e-5)
    assert abs(scores[0] - 1.0) > 1e-3
    assert result["corpus"]["sentence_similarity"] == pytest.approx(sum(scores) / 2)


def test_more_captions_than_a_batch(bert_folder):
    captions = [f"a dog {'barks ' * times}" for times in range(150)]
    result = score_captions(
        captions, [[text] for text in captions], ["sentence_similarity"], sentence_encoder=bert_folder
    )
    assert [row["sentence_similarity"] for row in result["per_caption"]] == pytest.approx([1.0] * 150, abs=1e-5)


def test_an_encoder_that_is_not_there(tmp_path):
    missing = str(tmp_path / "nothing")
    result = score_captions(["a"], [["a"]], ["bleu", "sentence_similarity"], sentence_encoder=missing)
    assert "bleu_1" in result["corpus"]
    assert missing in result["skipped"]["sentence_similarity"]
