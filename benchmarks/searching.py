"""
How well and how fast an index is searched.

    python benchmarks/searching.py quality --esc50 ESC50 --index /tmp/fold5 --encoder MINILM   # makes the index first
    python benchmarks/searching.py speed --index /tmp/fold5 --recordings 1000 100000           # its states, repeated
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml

from evaluation_mac.metrics.bootstrap import weighted_intervals
from evaluation_mac.metrics.retrieval_scores import retrieval_scores
from evaluation_mac.metrics.text_encoder import TextEncoder
from processing_mac import DEFAULT_MODEL, load_captioner
from processing_mac.audio_state_mac import hash_weights
from serving_mac import index_cli
from serving_mac.caption_search import CaptionSearch
from serving_mac.caption_vectors import EMBEDDINGS
from serving_mac.index_folder import SCHEMA, SETTINGS, IndexFolder
from serving_mac.index_states import StateReader


QUERIES = Path(__file__).parent / "esc50_queries.yaml"
RESAMPLES = 1000


class Remembering(CaptionSearch):
    """A search that computes each likelihood once; queries and ways to search share them."""

    known: dict[str, dict[int, float]] = {}

    def log_likelihoods(self, rows, texts):
        for text in texts:
            known = self.known.setdefault(text, {})
            if new := [row for row in rows.tolist() if row not in known]:
                known |= zip(new, super().log_likelihoods(np.array(new), [text])[:, 0].tolist(), strict=True)
        return np.array([[self.known[text][row] for text in texts] for row in rows.tolist()])


class ByRecording(Remembering):
    """The likelihood of the query, a token, relative to that of what the model says of the recording itself."""

    def likelihoods(self, rows, query, similarities, likelihood):
        tokens = len(self.reader.tokenize([query])[0])
        likely = super().likelihoods(rows, query, similarities, "query")
        return likely / tokens + self.index.table["loss"].to_numpy()[rows]


class ByPrior(Remembering):
    """Each of the nearest captions relative to its mean probability over the recordings that are ordered."""

    def log_likelihoods(self, rows, texts):
        likely = super().log_likelihoods(rows, texts)
        return likely - np.logaddexp.reduce(likely, axis=0) + np.log(len(likely))


def quality(options: argparse.Namespace) -> None:
    """Print recalls of one query a category among the recordings of fold 5 for several ways to search."""
    rows = [row for row in pyarrow.csv.read_csv(options.esc50 / "manifest.csv").to_pylist() if int(row["fold"]) == 5]
    files = {os.path.abspath(options.esc50 / options.folder / row["file"]): row["category"] for row in rows}
    if index_cli.main([*files, "--output", str(options.index), "--model", options.model]) != 0:
        raise SystemExit("the index could not be made")
    index = IndexFolder(options.index)
    queries = yaml.safe_load(QUERIES.read_text(encoding="utf-8"))
    reader = StateReader(load_captioner(options.model, device="cpu"))
    encoders = {"words": None} | ({"encoder": TextEncoder(options.encoder)} if options.encoder else {})
    print(f"{len(index.table)} recordings, {index.table['caption'].nunique()} captions, {len(queries)} queries")
    print("captions compared by\tordered by the likelihood of\tR@1\tR@10\tmAP@10")
    ways = {
        "the query": (Remembering, "query"),
        "the query, by recording": (ByRecording, "query"),
        "captions": (Remembering, "captions"),
        "captions, by their prior": (ByPrior, "captions"),
    }
    for name, encoder in encoders.items():
        show([name, "no likelihood"], files, queries, CaptionSearch(index, encoder), rerank=0)
        for number, (way, (kind, likelihood)) in itertools.product(options.rerank, ways.items()):
            search = kind(index, encoder, reader)
            show([name, f"{number}: {way}"], files, queries, search, rerank=number, likelihood=likelihood)


def show(labels: list[str], files: dict[str, str], queries: dict[str, str], search: CaptionSearch, **options) -> None:
    """Print the scores of one way to search, with 95 % intervals over queries."""
    ranks, precisions = [], []
    for category, query in queries.items():
        found = np.array([files[hit.audio] == category for hit in search.find(query, top=len(files), **options)])
        wanted = min(sum(value == category for value in files.values()), 10)
        ranks.append(found.argmax() + 1 if found.any() else np.inf)
        top = found[:10]
        precisions.append(float((np.cumsum(top) / (np.arange(len(top)) + 1) * top).sum() / wanted))
    places, precision = np.array(ranks), np.array(precisions)
    scores = retrieval_scores(places, precision)
    bounds = weighted_intervals(lambda weights: retrieval_scores(places, precision, weights), len(places), RESAMPLES)
    cells = [
        f"{scores[key]:.3f} ({bounds[key][0]:.2f}-{bounds[key][1]:.2f})" for key in ("recall_1", "recall_10", "map_10")
    ]
    print("\t".join([*labels, *cells]), flush=True)


def speed(options: argparse.Namespace) -> None:
    """Print what opening and searching cost, in seconds of CPU time and by the clock, for several sizes."""
    source = IndexFolder(options.index)
    size = sum(file.stat().st_size for file in options.index.iterdir())
    print(f"{size / len(source.table) / 1e3:.1f} kB a recording on disk; load {os.getloadavg()[0]:.1f}")
    reader = StateReader(load_captioner(options.model, device="cpu"))
    queries = list(yaml.safe_load(QUERIES.read_text(encoding="utf-8")).values())[: options.queries]
    encoder = TextEncoder(options.encoder) if options.encoder else None
    print("recordings\tcaptions\topen, CPU s\tby\tordered\ta query, CPU s\tby the clock, s (medians)")
    for number in options.recordings:
        with tempfile.TemporaryDirectory(dir=options.index.parent) as folder:
            repeat(source, number, Path(folder), encoder)
            for way in [None, encoder] if encoder else [None]:
                begin = time.process_time()
                search = CaptionSearch(IndexFolder(Path(folder)), way, reader)
                opening = time.process_time() - begin
                for rerank in (0, *options.rerank):
                    spent = [measure(search, query, rerank) for query in queries]
                    cpu, clock = np.median(spent, axis=0)
                    cells = [number, len(search.captions), f"{opening:.2f}", "encoder" if way else "words", rerank]
                    print(*cells, f"{cpu:.3f}", f"{clock:.3f}", sep="\t", flush=True)


def measure(search: CaptionSearch, query: str, rerank: int) -> tuple[float, float]:
    """Search once; return the seconds of CPU time and by the clock."""
    clock, cpu = time.perf_counter(), time.process_time()
    search.find(query, rerank=rerank)
    return time.process_time() - cpu, time.perf_counter() - clock


def repeat(source: IndexFolder, number: int, folder: Path, encoder: TextEncoder | None) -> None:
    """
    Make an index of `number` recordings of the states of another, each part's states being a link to those.

    Captions are pairs of the other's, so that there are many; their vectors need only be as many, and are random.
    """
    (folder / SETTINGS).write_text(source.settings.write())
    pairs = itertools.cycle(itertools.product(source.table["caption"].unique(), repeat=2))
    captions, made = set(), 0
    for part in itertools.count():
        for name, table in source.table.groupby("part"):
            table = table.drop(columns="part")[: number - made].copy()
            if not len(table):
                break
            table["audio"] = [f"/{made + row}" for row in range(len(table))]
            table["caption"] = [" and ".join(next(pairs)) for _ in range(len(table))]
            captions |= set(table["caption"])
            made += len(table)
            target = folder / f"part-{part:04}{name[5:][-1]}.parquet"
            pq.write_table(pa.Table.from_pandas(table, SCHEMA, preserve_index=False), target)
            os.link(source.folder / f"{name}.safetensors", target.with_suffix(".safetensors"))
        if made == number:
            break
    if encoder is not None:
        vectors = np.random.default_rng(0).standard_normal(
            (len(captions), len(encoder.embed_text(["a"])[0])), np.float32
        )
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        about = json.dumps({"name": "", "weights": hash_weights(encoder.model)})
        table = pa.table({"caption": sorted(captions), "embedding": column}).replace_schema_metadata(
            {"encoder": about}
        )
        pq.write_table(table, folder / EMBEDDINGS)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("quality", "speed"))
    parser.add_argument("--index", type=Path, required=True, help="folder of the index; quality makes it")
    parser.add_argument("--esc50", type=Path, help="folder of ESC-50 with manifest.csv, for quality")
    parser.add_argument("--folder", default="uniform", help="recordings in it (default: uniform)")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--encoder", help="sentence encoder")
    parser.add_argument("--rerank", type=int, nargs="+", default=[100])
    parser.add_argument("--recordings", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--queries", type=int, default=10, help="of which the median is taken (default: 10)")
    options = parser.parse_args()
    {"quality": quality, "speed": speed}[options.what](options)


if __name__ == "__main__":
    main()
