"""Shards are read once a pass by everybody together."""

import io
import json
import math
import tarfile
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from training_mac.data.shards import expand_braces, read_samples
from training_mac.examples.streaming import StreamingTrainingSet
from training_mac.recipe.data_fields import DataRecipe, Source


@pytest.fixture
def shards(manifest: Path, tmp_path: Path) -> str:
    """Four shards of two samples: captions in JSON; shard 3 has text files instead."""
    for shard in range(4):
        with tarfile.open(tmp_path / f"sounds-{shard:03d}.tar", "w") as tar:
            for sample in range(2):
                text = {"json": json.dumps({"caption": [f"{shard}-{sample}"]}), "txt": f"{shard}-{sample}"}
                kind = "txt" if shard == 3 else "json"
                sound = (manifest.parent / f"{sample}.wav").read_bytes()
                for suffix, content in (("wav", sound), (kind, text[kind].encode())):
                    entry = tarfile.TarInfo(f"clip{sample}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return str(tmp_path / "sounds-{000..002}.tar")


def draw(training_set: StreamingTrainingSet, count: int, workers: int = 0) -> list[dict]:
    return list(islice(DataLoader(training_set, batch_size=None, num_workers=workers), count))


def test_braces_are_the_shells() -> None:
    assert expand_braces("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expand_braces("{x,y}/{0..1}.tar") == ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_has_every_sample_once(shards: str, make_set, workers: int) -> None:
    training_set = make_set(DataRecipe(shards), seed=0)
    drawn = [example["caption"] for example in draw(training_set, 12, workers)]
    shares = [drawn[worker :: max(workers, 1)] for worker in range(max(workers, 1))]  # the loader asks them in turn
    dealt = [sorted(set(share)) for share in shares]
    assert sorted(caption for own in dealt for caption in own) == [
        f"{shard}-{sample}" for shard in range(3) for sample in range(2)
    ]
    for share, own in zip(shares, dealt, strict=True):
        passes = [share[start : start + len(own)] for start in range(0, len(share) - len(own) + 1, len(own))]
        assert all(sorted(one) == own for one in passes)


def test_processes_share_the_samples(shards: str, make_set) -> None:
    drawn: list[str] = []
    for process in range(2):
        training_set = make_set(DataRecipe(shards), seed=0)
        training_set.process, training_set.num_processes = process, 2
        drawn += [example["caption"] for example in draw(training_set, 3)]
    assert len(set(drawn)) == 6


def test_a_sample_varies_by_seed_and_pass_only(shards: str, make_set) -> None:
    def first_pass(seed: int, workers: int, epoch: int = 0) -> dict[str, torch.Tensor]:
        """Each sample as it came by first; a worker of few shards is ahead of the others."""
        training_set = make_set(DataRecipe(shards, gain_db=6.0, spec_augment=True), seed)
        training_set.set_epoch(epoch)
        drawn: dict[str, torch.Tensor] = {}
        for example in draw(training_set, 12, workers):
            drawn.setdefault(example["audio"], example["input_features"])
        assert len(drawn) == 6
        return drawn

    alone = first_pass(seed=1, workers=0)
    for workers in (1, 2):
        assert all(torch.equal(features, alone[name]) for name, features in first_pass(1, workers).items()), workers
    for other in (first_pass(seed=2, workers=0), first_pass(seed=1, workers=0, epoch=1)):
        assert not any(torch.equal(features, alone[name]) for name, features in other.items())


def test_two_recordings_of_a_stream_are_joined(shards: str, make_set) -> None:
    training_set = make_set(DataRecipe(shards, join_probability=1.0), seed=0)
    first, second, *_ = draw(training_set, 3)
    assert " then " not in first["caption"] and second["caption"].endswith(f", then {first['caption']}")


def test_captions_may_be_text_files(shards: str, make_set) -> None:
    training_set = make_set(DataRecipe(shards.replace("{000..002}", "003")), seed=0)
    assert {example["caption"] for example in draw(training_set, 2)} == {"3-0", "3-1"}


def add_bad_sample(shards: str) -> str:
    """A shard in which the second sample is no audio."""
    path = Path(shards.replace("{000..002}", "bad"))
    with tarfile.open(path, "w") as tar:
        for sample, content in enumerate(
            (Path(path.parent / "sounds-000.tar").read_bytes()[512 : 512 + 96044], b"noise")
        ):
            for suffix, data in (("wav", content), ("json", b'{"caption": "x"}')):
                entry = tarfile.TarInfo(f"clip{sample}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return str(path)


def test_unreadable_samples_are_named_or_counted(shards: str, make_set) -> None:
    path = add_bad_sample(shards)
    with pytest.raises(ValueError, match=r"sounds-bad.tar, clip1.*cannot be read as audio.*`skip_bad_audio: true`"):
        draw(make_set(DataRecipe(path), seed=0), 2)
    training_set = make_set(DataRecipe(path, skip_bad_audio=True), seed=0)
    assert {example["audio"] for example in draw(training_set, 3, workers=1)} == {f"{path}, clip0"}
    assert training_set.num_skipped >= 2


def test_wrong_shards_are_named(shards: str, make_set, tmp_path: Path, manifest: Path) -> None:
    with pytest.raises(ValueError, match=r"sounds-004.tar: no such shard"):
        make_set(DataRecipe(shards.replace("002", "004")), seed=0)
    with pytest.raises(ValueError, match="no audio 'flac' in its samples; they hold"):
        make_set(DataRecipe({"path": shards, "columns": {"audio": "flac"}}), seed=0)
    with pytest.raises(ValueError, match="cannot be mixed"):
        make_set(DataRecipe([{"path": shards}, {"path": str(manifest)}]), seed=0)


def test_a_stream_trains(shards: str, base: Path, write_recipe, train) -> None:
    folder = train(write_recipe(base_model=str(base), train_data=shards, eval_data=None, dataloader_num_workers=2))
    state = json.loads(next(folder.glob("stage-1/**/trainer_state.json")).read_text())
    assert state["global_step"] == 3 and all(
        math.isfinite(row["loss"]) for row in state["log_history"] if "loss" in row
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "a truncated archive"),
        (lambda content: content[: content.rindex(b"ustar") - 257], "a truncated archive"),  # between two files
        (lambda content: b"", "an empty archive"),
        (lambda content: bytes(10_240), "an empty archive"),
        (lambda content: b"no archive" * 1000, "cannot be read as WebDataset shards"),
    ],
    ids=["cut in a file", "cut between files", "empty", "no files", "text"],
)
def test_a_broken_shard_is_named(damage, message, shards: str, make_set) -> None:
    first = Path(shards.replace("{000..002}", "000"))
    first.write_bytes(damage(first.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        make_set(DataRecipe(shards), seed=0)
    assert "sounds-" in str(error.value)


def test_a_shard_that_breaks_off_later_is_named(shards: str) -> None:
    def samples():
        yield {"__url__": "a.tar", "__key__": "7"}
        raise tarfile.ReadError("unexpected end of data")

    with pytest.raises(ValueError, match=r"cannot be read on after a.tar, 7 \(unexpected end of data\)"):
        list(read_samples(samples(), Source(shards)))
