"""How jobs become batches."""

import asyncio

import pytest
import torch

from serving_mac.server_batches import Batcher
from serving_mac.server_captions import Answer, Job


def make_job(windows: int = 1, prompt: str | None = None) -> Job:
    return Job(torch.zeros(windows, 1, 1), 1.0, prompt)


def run(caption, jobs: list[Job], max_batch: int = 4, wait: float = 0.05) -> list:
    """Submit jobs together and return their answers or errors."""

    async def submit_all() -> list:
        batcher = Batcher(caption, max_batch, wait)
        worker = asyncio.create_task(batcher.run())
        answers = await asyncio.gather(*map(batcher.submit, jobs), return_exceptions=True)
        worker.cancel()
        return answers

    return asyncio.run(submit_all())


def test_batches_are_bounded_by_recordings_and_by_windows():
    batches = []

    def caption(jobs):
        batches.append([len(job.windows) for job in jobs])
        return [Answer(str(len(job.windows)), [], 1.0) for job in jobs]

    sizes = [1, 1, 1, 1, 1, 2, 2, 1, 9, 1]
    answers = run(caption, [make_job(windows) for windows in sizes])
    assert [answer.caption for answer in answers] == list(map(str, sizes))
    assert batches == [[1, 1, 1, 1], [1, 2], [2, 1], [9], [1]]


def test_a_faulty_job_hurts_nobody_else():
    def caption(jobs):
        if any(job.prompt == "bad" for job in jobs):
            raise RuntimeError("no memory")
        return [Answer("good", [], 1.0) for _ in jobs]

    first, second, third = run(caption, [make_job(), make_job(prompt="bad"), make_job()])
    assert (first.caption, third.caption) == ("good", "good") and isinstance(second, RuntimeError)


def test_a_job_that_nobody_waits_for_is_left_out():
    seen = []

    def caption(jobs):
        seen.extend(jobs)
        return [Answer("", [], 1.0) for _ in jobs]

    async def leave() -> None:
        batcher = Batcher(caption, 4, 0.05)
        worker = asyncio.create_task(batcher.run())
        gone = make_job()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.submit(gone), 0.01)
        stays = make_job()
        await batcher.submit(stays)
        worker.cancel()
        assert seen == [stays] and gone.gone.is_set()

    asyncio.run(leave())
