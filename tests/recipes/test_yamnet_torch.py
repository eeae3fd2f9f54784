"""The teacher in torch hears what its TFLite file hears."""

import sys
from pathlib import Path

import pytest
import torch


sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

import mix_everyday
import yamnet_torch
from mix_everyday import EMBEDDING

from processing_mac.audio_mac import load_waveform


EXAMPLES = Path(__file__).parents[2] / "examples"
FRAME = 15_600  # samples of one embedding
LOG_MEL = 89  # the file's tensor of log-mels


def read_examples() -> list[torch.Tensor]:
    """Recordings of the repository, (1, samples) each."""
    names = ("cat.flac", "crying_baby.mp3", "siren.opus", "speech.flac", "thunderstorm.ogg")
    return [torch.from_numpy(load_waveform(str(EXAMPLES / name)))[None] for name in names]


def test_there_is_an_embedding_every_half_second() -> None:
    torch.manual_seed(0)
    teacher = yamnet_torch.Yamnet().eval()
    assert teacher(torch.randn(2, FRAME)).shape == (2, 1, 1024)
    told = teacher(waves := torch.randn(2, FRAME + 2 * 7680))
    assert told.shape == (2, 3, 1024) and (told >= 0).all()
    torch.testing.assert_close(told[:, 1], teacher(waves[:, 7680 : 7680 + FRAME])[:, 0])


def test_it_hears_what_the_file_hears(published) -> None:
    pytest.importorskip("ai_edge_litert")
    path = published("teacher") / "yamnet.tflite"
    hear, teacher, ours, theirs = mix_everyday.load_teacher(path), yamnet_torch.load_yamnet(path), [], []
    for wave in read_examples():
        ours.append(teacher(wave)[0, ::2])  # the file hears without overlaps
        theirs.append(torch.from_numpy(hear(wave[0].numpy())).float()[: len(ours[-1])])
    told, told_by_file = torch.cat(ours), torch.cat(theirs)
    missed = (told - told_by_file).square().sum() / (told_by_file - told_by_file.mean(0)).square().sum()
    assert missed < 0.25  # the file rounds its Fourier transform to 8 bits, which is heard behind pure tones


def test_its_layers_make_of_the_file_s_log_mels_what_the_file_does(published) -> None:
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    path = published("teacher") / "yamnet.tflite"
    file = interpreters.Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True)
    file.allocate_tensors()
    teacher, place = yamnet_torch.load_yamnet(path), file.get_input_details()[0]["index"]
    for wave in read_examples():
        file.set_tensor(place, wave[:, :FRAME].numpy())
        file.invoke()
        log_mel, embedding = (torch.from_numpy(file.get_tensor(tensor)) for tensor in (LOG_MEL, EMBEDDING))
        told = teacher.embed(log_mel[None])[0]
        assert (told - embedding.flatten()).norm() < 0.05 * embedding.norm()


def test_half_precision_hears_the_same(published) -> None:
    pytest.importorskip("ai_edge_litert")
    path, wave = published("teacher") / "yamnet.tflite", read_examples()[0]
    exact, rounded = (yamnet_torch.load_yamnet(path, dtype)(wave) for dtype in (torch.float32, torch.bfloat16))
    assert rounded.dtype == torch.float32 and (rounded - exact).norm() < 0.05 * exact.norm()


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.tflite: no such file; expected yamnet\.tflite"):
        yamnet_torch.load_yamnet(tmp_path / "none.tflite")
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "other.tflite").write_text("no model")
    with pytest.raises(ValueError, match=r"other\.tflite: expected YAMNet as a TFLite file"):
        yamnet_torch.load_yamnet(tmp_path / "other.tflite")
