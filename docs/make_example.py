"""
The picture of an example sound with its log-mel and caption in README.md: the model's own input and output.

    python docs/make_example.py examples/dog.flac docs/example.png
"""

import sys
from pathlib import Path

import matplotlib


matplotlib.use("Agg")  # no screen is needed

import matplotlib.pyplot as plt
import numpy as np
from transformers import pipeline

import modeling_mac  # noqa: F401  (registers the model)
import processing_mac  # noqa: F401  (registers the task)
from demo_mac.pictures import hertz_places


def main(sound: str, picture: Path) -> None:
    captioner = pipeline("audio-captioning")  # mac-tiny
    extractor = captioner.feature_extractor
    [waveform] = extractor.load(sound)
    log_mel = extractor.raw_log_mel(waveform).numpy()  # (frames, mel bins)
    caption = captioner(sound)[0]["caption"]
    seconds = len(waveform) / extractor.sampling_rate

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 3.6), height_ratios=(1, 3), sharex=True)
    above.plot(np.arange(len(waveform)) / extractor.sampling_rate, waveform, color="#3e7cb1", linewidth=0.5)
    above.set(yticks=[], xlim=(0, seconds))
    above.spines[["top", "right", "left", "bottom"]].set_visible(False)
    above.tick_params(bottom=False)
    below.imshow(log_mel.T, origin="lower", aspect="auto", extent=(0, seconds, 0, log_mel.shape[1]), cmap="magma")
    places = {label: share * log_mel.shape[1] for share, label in hertz_places(extractor).items()}
    below.set(xlabel="seconds", ylabel="Hz, on the mel scale")
    below.set_yticks(list(places.values()), list(places))
    figure.suptitle(f"{Path(sound).name}: “{caption}”", fontsize=13)
    figure.tight_layout()
    figure.savefig(picture, dpi=90)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
