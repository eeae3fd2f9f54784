"""
The picture of the example sounds in README.md: the log-mel that the model reads and the caption that it writes.

    python docs/make_example.py examples docs/example.png
"""

import sys
import textwrap
from pathlib import Path

import matplotlib


matplotlib.use("Agg")  # no screen is needed

import matplotlib.pyplot as plt
from transformers import pipeline

import modeling_mac  # noqa: F401  (registers the model)
import processing_mac  # noqa: F401  (registers the task)
from demo_mac.cli import find_examples
from demo_mac.pictures import hertz_places


def main(folder: Path, picture: Path) -> None:
    captioner = pipeline("audio-captioning")  # the checkpoint that ships
    extractor = captioner.feature_extractor
    sounds = find_examples(folder)
    figure, panels = plt.subplots(len(sounds) // 2, 2, figsize=(11, 1.75 * (len(sounds) // 2)), sharey=True)
    for sound, panel in zip(sounds, panels.flat, strict=True):
        [waveform] = extractor.load(sound)
        log_mel = extractor.raw_log_mel(waveform).numpy()  # (frames, mel bins)
        seconds = len(waveform) / extractor.sampling_rate
        panel.imshow(log_mel.T, origin="lower", aspect="auto", extent=(0, seconds, 0, log_mel.shape[1]), cmap="magma")
        places = {label: share * log_mel.shape[1] for share, label in hertz_places(extractor).items()}
        panel.set_yticks(list(places.values()), list(places), fontsize=8)
        panel.tick_params(axis="x", labelsize=8)
        title = f"{Path(sound).name}: “{captioner(sound)[0]['caption']}”"
        panel.set_title(textwrap.fill(title, 62), fontsize=10, loc="left")
    figure.supxlabel("seconds", fontsize=9)
    figure.supylabel("Hz, on the mel scale", fontsize=9)
    figure.tight_layout()
    figure.savefig(picture, dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
