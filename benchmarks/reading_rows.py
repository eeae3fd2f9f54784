"""
How long a table of OpenAQA's form takes to read, and how much memory: once a run, on the main process.

    python benchmarks/reading_rows.py --rows 200000
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from training_mac.data.tables import ClipTables
from training_mac.recipe.data_fields import DataRecipe, parse_sources


def main() -> None:
    """Write a table and its (empty) recordings, read it, and print seconds and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = multiprocessing.Process(target=write_table, args=(folder, rows))  # its memory is not counted
        writer.start()
        writer.join()
        data = DataRecipe(
            {"path": str(folder / "openaqa.json"), "format": "openaqa"}, audio_root=str(folder / "audio")
        )
        [source] = parse_sources(data.train_data, data)
        before, start = peak(), time.perf_counter()
        with ClipTables(folder / "clips") as tables:
            problems, missing = tables.read(source)
            clips = tables.table(source)
            seconds, megabytes = time.perf_counter() - start, peak() - before
            assert len(clips) == rows and not problems and not missing
            on_disk = sum(file.stat().st_size for file in (folder / "clips").iterdir()) / 1e6
    print(f"{rows:,} rows: {seconds:.2f} s, peak of memory + {megabytes:.0f} MB, table {on_disk:.0f} MB on disk")


def write_table(folder: Path, rows: int) -> None:
    """OpenAQA's fields, with an answer of a sentence; five questions a recording."""
    (folder / "audio").mkdir()
    names = [f"recording{number:07d}.flac" for number in range(0, rows, 5)]
    for name in names:
        (folder / "audio" / name).touch()
    table = [
        {
            "instruction": f"What can be inferred from sound number {row} about where it was recorded, and why?",
            "input": "", "audio_id": names[row // 5], "dataset": "audioset_train", "task": "open-ended question",
            "output": f"The recording of answer {row} suggests a busy street: engines pass, and people talk nearby.",
        }
        for row in range(rows)
    ]  # fmt: skip
    (folder / "openaqa.json").write_text(json.dumps(table, indent=1))


def peak() -> float:
    """Most memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
