"""Requests that come together become one batch."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .server_captions import Answer, Job


class Batcher:
    """
    Collects jobs for a moment and hands them to the model together, batch after batch, in a thread of its own.

    Args:
        caption: Captions a batch of jobs.
        max_batch: Most jobs in a batch. A batch reads no more windows than this either, unless one recording alone
            does, so that memory is bounded by a full batch of short recordings or by one long one.
        wait_seconds: Most seconds that the first job of a batch waits for others.
        on_batch: Told of every batch: its number of jobs and its seconds.
    """

    def __init__(
        self,
        caption: Callable[[Sequence[Job]], list[Answer]],
        max_batch: int,
        wait_seconds: float,
        on_batch: Callable[[int, float], None] = lambda jobs, seconds: None,
    ):
        self.caption = caption
        self.max_batch = max_batch
        self.wait_seconds = wait_seconds
        self.on_batch = on_batch
        self.queue: asyncio.Queue[tuple[Job, asyncio.Future[Answer]]] = asyncio.Queue()
        self.held: tuple[Job, asyncio.Future[Answer]] | None = None
        self.thread = ThreadPoolExecutor(1, "model")
        self.batch_seconds = 1.0  # of the last batches, smoothed

    async def submit(self, job: Job) -> Answer:
        """Wait for the answer to a job; if the waiting task is cancelled, the job gives its place free."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((job, future))
        try:
            return await future
        finally:
            job.gone.set()

    async def run(self) -> None:
        """Caption batches until cancelled."""
        while True:
            batch = [(job, future) for job, future in await self.gather() if not future.done()]
            if batch:
                await self.answer(batch)

    async def gather(self) -> list[tuple[Job, asyncio.Future[Answer]]]:
        """Collect the next batch."""
        batch = [self.held or await self.queue.get()]
        self.held = None
        cost = batch[0][0].cost
        deadline = asyncio.get_running_loop().time() + self.wait_seconds
        while len(batch) < self.max_batch:
            try:
                async with asyncio.timeout_at(deadline):
                    item = await self.queue.get()
            except TimeoutError:
                break
            cost += item[0].cost
            if cost > self.max_batch:
                self.held = item
                break
            batch.append(item)
        return batch

    async def answer(self, batch: list[tuple[Job, asyncio.Future[Answer]]]) -> None:
        """Caption a batch and give those who still wait their answers."""
        answers = await self.caption_batch([job for job, _ in batch])
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def caption_batch(self, jobs: list[Job]) -> list[Answer | Exception]:
        """Caption jobs together; after a fault, such as too little memory, each of them is tried alone."""
        start = time.perf_counter()
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self.thread, self.caption, jobs)
        except Exception as error:
            if len(jobs) == 1:
                return [error]
            return [answer for job in jobs for answer in await self.caption_batch([job])]
        seconds = time.perf_counter() - start
        self.batch_seconds += 0.2 * (seconds - self.batch_seconds)
        self.on_batch(len(jobs), seconds)
        return list(answers)

    def seconds_until_free(self, requests: int) -> int:
        """Estimate in how many whole seconds so many requests will be answered; at least one."""
        return max(1, round(self.batch_seconds * requests / self.max_batch + 0.5))
