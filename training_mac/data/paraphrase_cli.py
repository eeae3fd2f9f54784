r"""
`mac-paraphrase`: other wordings of captions, by translation there and back, for the `paraphrases` of a recipe.

    mac-paraphrase --data data/clotho/train.csv --format clotho --output data/paraphrases.jsonl \
        --there Helsinki-NLP/opus-mt-en-zh --there-prefix ">>cmn_Hans<< " --back Helsinki-NLP/opus-mt-zh-en \
        --sentence-encoder sentence-transformers/all-MiniLM-L6-v2

The same command again goes on where it was stopped; with other data it adds the captions of these. The file is whole
or not there: until all captions are done it is called FILE.part.
"""

import argparse
import json
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from evaluation_mac.metrics.text_encoder import TextEncoder
from processing_mac.caption_options_mac import positive
from processing_mac.whole_files_mac import write_text_whole
from training_mac.data.back_translation import Filter, Translator, paraphrase
from training_mac.data.paraphrases import read_paraphrases
from training_mac.data.problems import Problems
from training_mac.data.sources import READERS
from training_mac.recipe.data_fields import Source


WAYS = ("there", "there_prefix", "back", "back_prefix", "sentence_encoder", "number", "num_beams", "similarity",
        "shortest", "longest")  # fmt: skip  # options that decide what is in the file


def main(arguments: list[str] | None = None) -> int:
    """Paraphrase, and tell how many were kept: 0 if the file is whole, 2 (by exit) if it cannot be made."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        check(options)
        captions = read_captions(options)
        with locked(options.output):
            check_ways(options)
            done = resume(options.output)
            todo = [caption for caption in captions if caption not in done]
            counts = write_rest(options, todo) if todo else Counter()
            if partial(options.output).exists():
                os.replace(partial(options.output), options.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print(f"\nmac-paraphrase: stopped; {partial(options.output)} keeps what is done", file=sys.stderr)
        return 130
    if not todo:
        print(f"{options.output}: all {len(captions):,} captions were done before.")
        return 0
    print(
        f"{options.output}: {len(captions) - len(todo):,} captions were done before; of {len(todo):,} more "
        f"{counts['kept']:,} paraphrases are kept.\nLeft out: {counts['equal']:,} in the same words, "
        f"{counts['length']:,} by length, {counts['similarity']:,} by similarity, {counts['number']:,} by --number."
    )
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="mac-paraphrase",
        description="Write other wordings of captions, by translation there and back, for `paraphrases` of a recipe.",
        epilog="Exit code: 0 the file is whole, 2 it cannot be made, 130 stopped.",
    )
    data = parser.add_argument_group("captions")
    data.add_argument("--data", required=True, metavar="PATH", help="manifest, table or dataset, as in a recipe")
    data.add_argument("--format", default="", choices=list(READERS), help="its format; by default told by the name")
    data.add_argument("--split", help="split of a dataset (default: train)")
    data.add_argument("--caption-column", metavar="NAME", help="where the captions are, if not in `caption`")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file of JSON lines to write")
    models = parser.add_argument_group("models, each a folder or Hub id")
    models.add_argument("--there", required=True, metavar="MODEL", help="translates the captions into a language")
    models.add_argument("--back", required=True, metavar="MODEL", help="and this one back")
    models.add_argument("--there-prefix", default="", metavar="TEXT", help='before each sentence: ">>cmn_Hans<< "')
    models.add_argument("--back-prefix", default="", metavar="TEXT", help="the same of the way back")
    models.add_argument("--sentence-encoder", required=True, metavar="MODEL", help="judges whether meanings are alike")
    models.add_argument("--batch-size", type=positive, default=32, help="captions at a time (default: 32)")
    kept = parser.add_argument_group("what is kept")
    kept.add_argument("--number", type=positive, default=3, help="most paraphrases of a caption (default: 3)")
    kept.add_argument("--num-beams", type=positive, default=6, help="beams, and candidates of a caption (default: 6)")
    kept.add_argument("--similarity", type=float, default=0.7, help="least cosine with the caption (default: 0.7)")
    kept.add_argument("--shortest", type=float, default=0.5, help="least words, as a share of its own (default: 0.5)")
    kept.add_argument("--longest", type=float, default=2.0, help="most words, as a share of its own (default: 2)")
    return parser


def check(options: argparse.Namespace) -> None:
    """Refuse numbers with which nothing could be kept, and an output in no folder."""
    if options.num_beams < options.number:
        raise ValueError(f"--num-beams: {options.num_beams} candidates cannot give --number {options.number}")
    if not -1 <= options.similarity < 1:
        raise ValueError(f"--similarity {options.similarity}: expected a cosine, from -1 to below 1")
    if not 0 <= options.shortest <= options.longest or not math.isfinite(options.longest):
        raise ValueError(f"--shortest {options.shortest}, --longest {options.longest}: expected shares in this order")
    if not options.output.parent.is_dir():
        raise ValueError(f"--output {options.output}: no folder {options.output.parent}")


def read_captions(options: argparse.Namespace) -> list[str]:
    """Give every caption of the data once; their recordings need not be here."""
    columns = {"caption": options.caption_column} if options.caption_column else {}
    source = Source(options.data, options.format, split=options.split or "train", columns=columns)
    if source.format not in READERS:
        raise ValueError(f"--data {options.data}: shards are streamed; name a manifest, table or dataset")
    problems = Problems()
    captions = [text for _, clip in READERS[source.format](source, problems) for text in clip.captions]
    if problems:
        raise ValueError(f"--data has {problems.total} problems:\n{problems}")
    if not captions:
        raise ValueError(f"--data {options.data}: holds no captions")
    return list(dict.fromkeys(captions))


def partial(output: Path) -> Path:
    """Give the name of the file while captions are missing."""
    return output.with_name(f"{output.name}.part")


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Keep other runs of this command away from the file."""
    try:
        with FileLock(output.with_name(f".{output.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise ValueError(f"--output {output}: another run of this command writes to it") from None


def note_of(output: Path) -> Path:
    """Give the name of the file beside the output that tells how it was made."""
    return output.with_suffix(".settings.json")


def check_ways(options: argparse.Namespace) -> None:
    """Refuse to go on with a file that was made in another way than these options say."""
    output, note = options.output, note_of(options.output)
    if not output.exists() and not partial(output).exists():
        return
    if not note.exists():
        raise ValueError(f"--output {output}: exists, and no {note} tells how it was made; choose another file")
    earlier = json.loads(note.read_text(encoding="utf-8"))
    if changed := [f"--{name.replace('_', '-')}" for name in WAYS if earlier.get(name) != getattr(options, name)]:
        raise ValueError(f"--output {output}: was made with another {', '.join(changed)}, as {note} tells; choose "
                         "another file")  # fmt: skip


def resume(output: Path) -> set[str]:
    """
    Cut off a line that was half written, and give the captions that are done; a whole file is gone on with in a copy.

    Raises:
        ValueError: There are other lines than this command writes.
    """
    file = partial(output) if partial(output).exists() else output
    if not file.exists():
        return set()
    if file == partial(output):
        content = file.read_bytes()
        with open(file, "r+b") as rest:
            rest.truncate(content.rfind(b"\n") + 1)
    problems = Problems()
    done = {caption for _, caption, _ in read_paraphrases(file, problems)}
    if problems:
        raise ValueError(f"--output holds something else:\n{problems}")
    return done


def write_rest(options: argparse.Namespace, todo: list[str]) -> Counter:
    """Paraphrase the captions that are missing, batch by batch; give how many candidates met which end."""
    encoder = TextEncoder(options.sentence_encoder)
    there = Translator(options.there, options.there_prefix)
    back = Translator(options.back, options.back_prefix)
    chooser = Filter(encoder.embed_text, options.number, options.similarity, options.shortest, options.longest)
    write_text_whole(
        note_of(options.output), json.dumps({name: getattr(options, name) for name in WAYS}, indent=2) + "\n"
    )
    if options.output.exists() and not partial(options.output).exists():
        shutil.copyfile(options.output, partial(options.output))
    with open(partial(options.output), "a", encoding="utf-8") as file, tqdm(total=len(todo), unit="caption") as bar:
        for start in range(0, len(todo), options.batch_size):
            batch = todo[start : start + options.batch_size]
            found = paraphrase(batch, there, back, chooser, options.num_beams)
            for caption, others in zip(batch, found, strict=True):
                file.write(json.dumps({"caption": caption, "paraphrases": others}, ensure_ascii=False) + "\n")
            file.flush()
            bar.update(len(batch))
    return chooser.counts


if __name__ == "__main__":
    sys.exit(main())
