"""
The language model of a MAC that heard anew learns to tell what is heard, from scores of tags that are honest.

    python recipes/tell_everyday.py runs/everyday/told-50 runs/everyday/told-51 runs/everyday/long-50 \
        --model runs/heard --minutes 30 --output runs/told

`--model` is what `hear_everyday.py` leaves. Its encoder knows the recordings that it has learnt tags of by heart, and
a language model that read its scores of them would learn to trust scores blindly. So the encoder that it was before
(`--untaught`) hears the scenes (`everyday_rows.py`), tags are told from its tokens as those of recordings that nobody
has learnt from (`everyday_honest.py`), and the language model and the second layer of the connector learn to tell
(`everyday_told.py`) scenes and collages of such scores (`everyday_collages.py`, `everyday_speaker.py`). No encoder is
in the way then, so that one core is enough.

While the training goes on `state.pt` and `state.rows/` are in `--output`, from which the same command goes on if it is
stopped.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError


sys.path.insert(0, str(Path(__file__).parent))

from everyday_collages import Examples
from everyday_grammar import Grammar
from everyday_honest import Evidence, gather_evidence
from everyday_mixed import Scene, digest_of_scenes, read_scenes
from everyday_new_encoder import check_model, head_of, quiet_padding
from everyday_rows import ENOUGH, Encoding, are_kept, encode_scenes, keep_rows, kept_rows, remove_rows, sample_rows
from everyday_speaker import make_run, train

from modeling_mac import MacForConditionalGeneration
from processing_mac import MacProcessor
from processing_mac.caption_options_mac import thread_count
from processing_mac.whole_files_mac import write_files_into
from training_mac.examples.encoded import digest_of_weights
from training_mac.run.saving import save_whole_model


ROWS = "state.rows"  # folder beside state.pt
PARTS = 8  # that the groups of recordings fall into; a scene is told by those of the parts that it has nothing of


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+", help="folders of mix_everyday.py, with a teacher")
    parser.add_argument("--model", type=Path, required=True, help="folder of hear_everyday.py")
    parser.add_argument("--untaught", type=Path, help="MAC whose encoder was told no tags (default: MODEL/untaught)")
    parser.add_argument("--minutes", type=float, default=30, help="of the training (default: 30)")
    parser.add_argument("--steps", type=int, help="of the training, in place of --minutes")
    parser.add_argument("--batch", type=int, default=32, help="examples in a step, of a window each (default: 32)")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="learning rate (default: 1.5e-3)")
    parser.add_argument("--seed", type=int, default=0, help="of every choice (default: 0)")
    parser.add_argument("--threads", type=thread_count, help="of the processor (default: one a core)")
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16: faster where a processor knows it")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new MAC")
    options = parser.parse_args(arguments)
    options.untaught = options.untaught or options.model / "untaught"
    try:
        check_options(options)
        tell(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def check_options(options: argparse.Namespace) -> None:
    """
    Refuse what cannot be, before anything is read.

    Raises:
        ValueError: A value is impossible, a folder is missing, or `--output` is finished.
    """
    for name in ("minutes", "steps", "batch", "rate"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name} {value}: expected more than 0")
    if options.seed < 0:
        raise ValueError(f"--seed {options.seed}: expected 0 or more")
    for name in ("model", "untaught"):
        if not (getattr(options, name) / "config.json").is_file():
            raise ValueError(
                f"--{name} {getattr(options, name)}: no MAC is there; expected a folder of hear_everyday.py"
            )
    if (options.output / "config.json").is_file() and not (options.output / "state.pt").is_file():
        raise ValueError(f"{options.output} is finished: name another --output")


def tell(options: argparse.Namespace) -> None:
    """Train a language model and write the MAC that speaks with it."""
    if options.threads:
        torch.set_num_threads(options.threads)
    grammar = Grammar()
    scenes = read_scenes(options.scenes, grammar, PARTS)
    model, untaught = (load_model(path, len(grammar.tags)) for path in (options.model, options.untaught))
    rows, there = (one.config.audio_config.grid[0] for one in (model, untaught))
    if rows != there:
        raise ValueError(f"{options.untaught}: its windows have {there} rows of patches, those of --model {rows}")
    processor = MacProcessor.from_pretrained(options.model)
    everything = [one for some in scenes for one in some]
    learnt_from = {
        "scenes of the digest": digest_of_scenes(everything),
        "an encoder of --model of the digest": digest_of_weights(model.model.audio_tower),
        "an encoder of --untaught of the digest": digest_of_weights(untaught.model.audio_tower),
    }
    run, state = make_run(options, model, learnt_from), options.output / "state.pt"
    if state.is_file():
        run.load(state)
        print(f"{state}: goes on from step {run.step}", flush=True)
    else:
        shutil.rmtree(options.output / ROWS, ignore_errors=True)  # of a run whose state was removed
        options.output.mkdir(parents=True, exist_ok=True)
        some = everything[:: max(1, len(everything) // ENOUGH)]
        encodings = encode_scenes(model, processor.feature_extractor, some, [options.seed])
        quiet_padding(model, *sample_rows(encodings, rows), len(grammar.tags))
        run.save(state)
    evidence = find_evidence(options, scenes, untaught, grammar)
    train(run, Examples(everything, evidence, grammar, rows), processor, options)
    run.save(state)
    with write_files_into(options.output) as folder:
        save_whole_model(model.eval(), processor, folder, store_float16=True)
    state.unlink()
    shutil.rmtree(options.output / ROWS)
    print(f"{options.output}: {run.step} steps of {options.batch} examples", file=sys.stderr)


def load_model(folder: Path, tags: int) -> MacForConditionalGeneration:
    """
    Load a MAC in float32 that `hear_everyday.py` wrote.

    Raises:
        ValueError: It cannot be read, or its connector does not give the scores of so many tags, and nothing else.
    """
    try:
        model = MacForConditionalGeneration.from_pretrained(folder).float()
        check_model(model, tags)
        layer = model.model.connector.linear_1
        if layer.weight[tags:].any() or layer.bias[tags:].any():
            raise ValueError(f"its connector has other units than the scores of {tags} tags.")
        if model.config.modality_projections:
            raise ValueError("its language model has projections of its own for audio, which would learn nothing.")
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder}: {str(error).splitlines()[0]}") from error
    return model


def find_evidence(
    options: argparse.Namespace, scenes: list[list[Scene]], untaught: MacForConditionalGeneration, grammar: Grammar
) -> Evidence:
    """Tell the tags of the scenes honestly, or load what was told of them before the command was stopped."""
    kept = options.output / ROWS / "evidence.pt"
    kept.parent.mkdir(exist_ok=True)
    if kept.is_file():
        return Evidence.load(kept)
    extractor = MacProcessor.from_pretrained(options.untaught).feature_extractor
    own = head_of(untaught, len(grammar.tags))
    encodings: list[Encoding] = []
    files = [options.output / ROWS / f"{number}.float16" for number in range(len(scenes))]
    for number, (file, some) in enumerate(zip(files, scenes, strict=True)):
        if not are_kept(file):
            keep_rows(file, encode_scenes(untaught, extractor, some, [options.seed, number]))
            print(f"{options.scenes[number]}: {len(some)} scenes are encoded", flush=True)
        encodings += kept_rows(file, len(own[0]))
    everything = [one for some in scenes for one in some]
    evidence = gather_evidence(everything, encodings, own, grammar, np.random.default_rng(options.seed))
    evidence.save(kept)
    for file in files:  # which take some GB, and are of no use any more
        remove_rows(file)
    return evidence


if __name__ == "__main__":
    main()
