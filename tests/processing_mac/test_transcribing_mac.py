"""Transcripts of long recordings: overlapping windows, joined where they agree."""

from types import SimpleNamespace

import numpy as np
import pytest

from processing_mac import MacFeatureExtractor
from processing_mac.transcribing_mac import cut, join_transcripts, transcribe


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["one two three four five", "four five six seven"], "one two three four five six seven"),
        (["one two three fo", "three four five six"], "one two three four five six"),  # a word that a border cut
        (["One, two three.", "Three, four five"], "One, two Three, four five"),
        (["one two", "three four"], "one two three four"),
        (["", "one two", ""], "one two"),
        (["one"], "one"),
    ],
)
def test_windows_are_joined_where_they_agree(texts, joined):
    assert join_transcripts(texts, overlap=0.4) == joined


def test_words_far_from_the_border_are_no_overlap():
    texts = ["red one two three four five six seven eight blue", "green nine ten one two three four five six seven"]
    assert join_transcripts(texts, overlap=0.05) == " ".join(texts)


def test_windows_without_overlap_follow_each_other():
    assert join_transcripts(["one two", "two three"], overlap=0.0) == "one two two three"


@pytest.mark.parametrize(
    ("samples", "overlap", "lengths"),
    [(100_000, 0.2, [100_000]), (100_001, 0.2, [100_000, 20_001]), (250_000, 0.0, [100_000, 100_000, 50_000])],
)
def test_every_sample_is_heard(samples, overlap, lengths):
    windows = cut(np.arange(samples, dtype=np.float32), 100_000, overlap)
    assert [len(window) for window in windows] == lengths
    assert set(np.concatenate(windows)) == set(range(samples))


class Speaker:
    """Says which seconds a window holds: the waveform counts them."""

    def __init__(self):
        self.processor = SimpleNamespace(feature_extractor=MacFeatureExtractor())
        self.calls = []

    def __call__(self, windows, **kwargs):
        self.calls.append(kwargs)
        seconds = [np.unique(window.astype(int)) for window in windows]
        return [[{"caption": " ".join(f"s{second}" for second in each)}] for each in seconds]


def test_a_long_recording_is_transcribed_once():
    speaker = Speaker()
    waveform = np.repeat(np.arange(30, dtype=np.float32), 16_000)
    assert transcribe(speaker, waveform, 16_000, prompt="Transcribe.") == " ".join(
        f"s{second}" for second in range(30)
    )
    assert speaker.calls == [
        {"batch_size": 8, "sampling_rate": 16_000, "max_new_tokens": 256, "prompt": "Transcribe."}
    ]


def test_an_overlap_that_never_moves_on_is_refused():
    with pytest.raises(ValueError, match=r"`overlap` is 1; expected a share"):
        transcribe(Speaker(), np.zeros(16_000, dtype=np.float32), overlap=1)
