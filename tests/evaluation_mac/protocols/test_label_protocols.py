"""What stands before the text encoder, as LTU and SAM publish it."""

import numpy as np
import pytest

from evaluation_mac.protocols.label_protocols import LABEL_PROTOCOLS, similarity_by_caption


class Listener:
    """An encoder that notes what it is given."""

    def __init__(self, averages: bool):
        self.averages, self.heard = averages, []

    def embed_text(self, sentences):
        self.heard.append(list(sentences))
        return np.eye(4, dtype=np.float32)[: len(sentences)]


CAPTION, LABELS = 'A "Dog" barks, loudly.', ["Bass_drum", "Air horn, truck horn"]
SAID = {
    ("plain", False): [['A "Dog" barks, loudly.'], ["sound of Bass drum", "sound of Air horn, truck horn"]],
    ("sam", False): [['a "dog" barks, loudly.'], ["sound of bass drum", "sound of air horn, truck horn"]],
    ("ltu", False): [["sound of a dog barks, loudly."], ["sound of bass drum", "sound of air horn, truck horn"]],
    ("ltu", True): [["sound of a dog barks loudly"], ["sound of bass drum", "sound of air horn truck horn"]],
}


@pytest.mark.parametrize(("name", "averages"), SAID)
def test_what_is_compared(name: str, averages: bool) -> None:
    encoder = Listener(averages)
    similarity = similarity_by_caption([CAPTION], LABELS, encoder, LABEL_PROTOCOLS[name])
    assert encoder.heard == SAID[name, averages] and similarity.tolist() == [[1, 0]]


def test_only_ltu_samples() -> None:
    assert LABEL_PROTOCOLS["ltu"].generation["temperature"] == 0.1
    assert LABEL_PROTOCOLS["sam"].generation["do_sample"] is False and not LABEL_PROTOCOLS["plain"].generation
