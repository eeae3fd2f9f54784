"""
Whether weights of 8 bits (`to_int8`) decode faster than float32, and whether the captions stay the same.

    python benchmarks/int8.py --size 130m --threads 2

Writes `benchmarks/results/int8-cpu.json`.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from speed import RESULTS, median_seconds, provenance, write
from speed_columns import decode
from speed_models import SHAPES, build
from transformers import AutoModelForMultimodalLM, AutoProcessor

import modeling_mac
import processing_mac


EXAMPLES = Path(__file__).parents[1] / "examples"
SOUNDS = (".wav", ".flac", ".ogg", ".opus")


def quantised(model: modeling_mac.MacForConditionalGeneration) -> modeling_mac.MacForConditionalGeneration:
    """A copy with weights of 8 bits."""
    return copy.deepcopy(model).to_int8()


def compare_captions() -> dict[str, Any]:
    """The shipped checkpoint's captions of the example sounds, both ways."""
    model = AutoModelForMultimodalLM.from_pretrained(processing_mac.DEFAULT_MODEL, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(processing_mac.DEFAULT_MODEL)
    files = sorted(str(path) for path in EXAMPLES.iterdir() if path.suffix in SOUNDS)
    captions = [
        [processor.batch_decode(one.generate(**processor(audio=file), do_sample=False))[0] for file in files]
        for one in (model, quantised(model))
    ]
    return {"clips": len(files), "same": sum(a == b for a, b in zip(*captions, strict=True))}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="130m", help="language model")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = build(options.size, "ours", "cpu", torch.float32)
    runs = {
        "float32": decode({"ours": model})["ours"],
        "int8": decode({"ours": model, "int8": quantised(model)})["int8"],
        "products in float32": decode({"ours": model})["floor"],
    }
    seconds = median_seconds(runs, options.repeats, "cpu")
    record = {
        "size": options.size, "decode": {"seconds": seconds, "repeats": options.repeats},
        "captions": compare_captions(), **provenance("cpu"),
    }  # fmt: skip
    write(RESULTS / "int8-cpu.json", json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
