"""Reading ahead: what waits is bounded, batches are of like length, and order and warnings are kept."""

import threading
import time
import warnings
from collections import Counter

import numpy as np
import pytest
import soundfile

from processing_mac import AudioCaptioningPipeline, reading_ahead_mac
from processing_mac.captioning_mac import caption_files
from processing_mac.free_cores_mac import FreeCores
from processing_mac.reading_ahead_mac import in_order, read_in_batches


@pytest.fixture
def captioner(model, processor) -> AudioCaptioningPipeline:
    return AudioCaptioningPipeline(model, processor=processor, device="cpu")


@pytest.mark.parametrize("cores", [None, 1, 3])
def test_captions_are_those_of_one_at_a_time(captioner, sound, tmp_path, capsys, monkeypatch, cores):
    """Lengths are mixed, two files are broken and one is cut; the order is that of the files."""
    monkeypatch.setattr(FreeCores, "count", lambda self: cores)
    files = [tmp_path / f"{seed:02}.wav" for seed in range(20)]
    for seed, file in enumerate(files):
        soundfile.write(file, sound([1, 12, 3, 25][seed % 4], seed), 16_000)
    for broken in (files[0], files[13]):
        broken.write_text("no sound")
    files[5].write_bytes(files[5].read_bytes()[:50_000])
    results = list(caption_files(captioner, list(map(str, files)), 3, free_cores=FreeCores() if cores else None))
    assert [file for file, _ in results] == list(map(str, files))
    for number, (file, result) in enumerate(results):
        if number in (0, 13):
            assert isinstance(result, ValueError) and file in str(result)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert [result] == captioner(file)
    assert capsys.readouterr().err.count("05.wav: ") == 1


def make_load(lengths: list[int], seen: list[str] | None = None):
    def load(file: str) -> np.ndarray:
        if seen is not None:
            seen.append(file)
        return np.zeros(lengths[int(file)], dtype=np.float32)

    return load


def test_batches_are_of_like_length_and_the_oldest_never_waits():
    lengths = [10, 500] * 32
    batches = []
    for batch in read_in_batches(make_load(lengths), [str(place) for place in range(64)], 4, rate=1000):
        batches.append(batch)
        time.sleep(0.01)  # the model's work, during which others are decoded
    mixed = [batch for batch in batches if len({len(clip.waveform) for clip in batch}) > 1]
    assert len(mixed) <= 4  # the first ones begin as soon as a batch is there
    for number, batch in enumerate(batches):
        assert batch[0].place == min(clip.place for later in batches[number:] for clip in later)
    assert sorted(clip.place for batch in batches for clip in batch) == list(range(64))


def test_what_waits_is_bounded(monkeypatch):
    """While the model works on the first batch, no more is decoded than the pool and the threads may hold."""
    seen: list[str] = []
    reading = read_in_batches(make_load([1] * 1000, seen), [str(place) for place in range(1000)], 4, rate=1)
    next(reading)
    time.sleep(0.2)
    assert len(seen) <= 4 * reading_ahead_mac.POOL_BATCHES + 2 * 4
    monkeypatch.setattr(reading_ahead_mac, "POOL_SECONDS", 10)
    seen.clear()
    reading = read_in_batches(make_load([11] * 1000, seen), [str(place) for place in range(1000)], 4, rate=1)
    first = next(reading)
    time.sleep(0.2)
    assert len(first) <= len(seen) <= reading_ahead_mac.DECODERS  # each thread may begin while there is room
    assert len(first) + sum(map(len, reading)) == 1000


def test_the_next_are_decoded_while_the_model_works():
    threads: Counter[str] = Counter()

    def load(file: str) -> np.ndarray:
        threads[threading.current_thread().name] += 1
        return np.zeros(1, dtype=np.float32)

    reading = read_in_batches(load, list("abcdefgh"), 2, rate=1)
    next(reading)
    time.sleep(0.2)
    assert threads.total() >= 4 and all(name.startswith("decode") for name in threads)
    list(reading)


def test_a_reader_that_stops_early_ends_the_threads():
    before = threading.active_count()
    reading = read_in_batches(make_load([1] * 100), [str(place) for place in range(100)], 4, rate=1)
    next(reading)
    reading.close()
    assert threading.active_count() == before


def test_in_order():
    assert list(in_order(iter([(2, "c"), (0, "a"), (1, "b"), (3, "d")]))) == ["a", "b", "c", "d"]
