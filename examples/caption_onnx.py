"""Caption from an ONNX folder without torch: `python caption_onnx.py onnx-folder dog.flac rain.ogg ...`.

Needs numpy, onnxruntime, soundfile, soxr and tokenizers, and the folder that `export_onnx.py` wrote.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr
from tokenizers import Tokenizer


RATE, FRAME, SHIFT, FFT, WINDOW_FRAMES = 16_000, 400, 160, 512, 1024  # Hz, samples, samples, bins, frames
PARTS = ("audio_encoder", "connector", "language_model", "lm_head", "decode")


class Captioner:
    """A recording in, its caption out; greedy, one recording at a time."""

    def __init__(self, folder: Path):
        self.settings = json.loads((folder / "captioning.json").read_text(encoding="utf-8"))
        self.arrays = dict(np.load(folder / "arrays.npz"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        options = {"providers": ["CPUExecutionProvider"]}
        self.parts = {name: onnxruntime.InferenceSession(folder / f"{name}.onnx", **options) for name in PARTS}

    def run(self, part: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The named outputs of a part."""
        session = self.parts[part]
        return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))

    def windows(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) at 16 kHz -> (windows, 1024, 128) normalised log-mel."""
        samples = samples - samples.mean()
        frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::SHIFT]
        frames = frames - frames.mean(axis=1, keepdims=True)
        frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        power = np.abs(np.fft.rfft(frames * np.hanning(FRAME), FFT)) ** 2
        log_mel = np.log(np.maximum(power @ self.arrays["mel_filters"], np.finfo(np.float32).eps))
        log_mel = np.pad(log_mel, ((0, -len(log_mel) % WINDOW_FRAMES), (0, 0)))
        log_mel = (log_mel - self.settings["mean"]) / self.settings["scale"]
        return log_mel.reshape(-1, WINDOW_FRAMES, log_mel.shape[1]).astype(np.float32)

    def embed(self, windows: np.ndarray) -> np.ndarray:
        """The prompt's embeddings, (1, length, width), with the clip's where `<|audio|>` stands."""
        tokens = self.run("audio_encoder", input_features=windows)["last_hidden_state"]
        audio = self.run("connector", tokens=tokens[:, 1:])["output"]
        text = self.settings["prompt"].replace("<|audio|>", self.settings["window"] * len(windows))
        ids = np.array(self.tokenizer.encode(text, add_special_tokens=False).ids)
        embeddings = self.arrays["embeddings"][ids]
        embeddings[ids == self.settings["audio_token_id"]] = audio.reshape(-1, embeddings.shape[1])
        return embeddings[None]

    def caption(self, path: str) -> str:
        """Encode, read the prompt once, then step by step with the state as input and output."""
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        inputs = self.embed(self.windows(soxr.resample(samples.mean(axis=1), rate, RATE)))
        state = self.run("language_model", inputs_embeds=inputs)
        logits = self.run("lm_head", input=state.pop("last_hidden_state")[:, -1:])["output"]
        names = {node.name for node in self.parts["decode"].get_inputs()}
        ids: list[int] = []
        while len(ids) < self.settings["max_new_tokens"]:
            logits[..., self.settings["suppress_tokens"]] = -np.inf
            ids.append(int(logits[0, -1].argmax()))
            if ids[-1] == self.settings["eos_token_id"]:
                break
            fed = {
                "input_ids": np.array([ids[-1:]]),
                "audio_num_windows": np.array([1]),
                "position_ids": np.zeros((1, 1), np.int64),
            }
            fed |= {f"input.{name.removeprefix('output.')}": value for name, value in state.items()}
            state = self.run("decode", **{name: value for name, value in fed.items() if name in names})
            logits = state.pop("logits")
        return " ".join(self.tokenizer.decode(ids).split())


if __name__ == "__main__":
    captioner = Captioner(Path(sys.argv[1]))
    for path in sys.argv[2:]:
        print(f"{path}: {captioner.caption(path)}")
