"""SPICE (Anderson et al., ECCV 2016) by its authors' Java program, and SPIDEr (Liu et al., ICCV 2017).

The program comes with pycocoevalcap, but needs Stanford CoreNLP 3.6.0 besides: 400 MB that no Python package carries.
Its two jars are looked for in pycocoevalcap's folder `spice/lib` and in the folder that CORENLP_HOME names.
"""

import json
import os
import tempfile
from pathlib import Path

from evaluation_mac.metrics.caption_scores import CaptionScores, MetricUnavailable, averaged
from evaluation_mac.metrics.java_program import pycocoevalcap_folder, run_java


_CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def spice(candidates: list[str], references: list[list[str]]) -> CaptionScores:
    """SPICE in 0..1, named `spice`, of tokenised captions, each against its own references. Takes minutes."""
    folder = pycocoevalcap_folder("SPICE") / "spice"
    jars = [folder / "spice-1.0.jar", *sorted((folder / "lib").glob("*.jar")), *_corenlp_jars(folder / "lib")]
    clips = [
        {"image_id": clip, "test": candidate, "refs": row}
        for clip, (candidate, row) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        captions, scores = Path(scratch, "captions.json"), Path(scratch, "scores.json")
        captions.write_text(json.dumps(clips), encoding="utf-8")
        classes = os.pathsep.join(map(str, jars))
        options = ["-Xmx8G", "-cp", classes, "edu.anu.spice.SpiceScorer"]
        run_java("SPICE", [*options, str(captions), "-out", str(scores), "-silent"])
        if not scores.is_file():
            raise MetricUnavailable("SPICE ended without scores")
        by_clip = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(scores.read_text("utf-8"))}
    return averaged("spice", [by_clip[clip] for clip in range(len(clips))])


def spider(cider_scores: CaptionScores, spice_scores: CaptionScores) -> CaptionScores:
    """SPIDEr, named `spider`: the mean of CIDEr-D and SPICE."""
    return averaged("spider", (cider_scores.per_caption()[:, 0] + spice_scores.per_caption()[:, 0]) / 2)


def _corenlp_jars(library: Path) -> list[Path]:
    for folder in (library, Path(os.environ.get("CORENLP_HOME", library))):
        jars = [folder / name for name in _CORENLP]
        if all(jar.is_file() for jar in jars):
            return jars
    raise MetricUnavailable(
        f"SPICE needs Stanford CoreNLP 3.6.0: put {' and '.join(_CORENLP)} into {library}, or set CORENLP_HOME to the "
        "folder that holds them"
    )
