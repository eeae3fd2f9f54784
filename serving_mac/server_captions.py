"""The model's side of a server: what one request wants, and a batch of them in one call of `generate`."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from processing_mac import AudioCaptioningPipeline
from processing_mac.long_recordings_mac import join_captions
from processing_mac.pipeline_mac import segment_times


@dataclass(eq=False)
class Job:
    """
    One recording that waits for its caption.

    Args:
        windows: Log-mel windows, (windows, frames, mel bins).
        seconds: Length of the recording.
        prompt: What to ask; None for the model's own prompt.
        in_parts: Whether there are more windows than the model was trained on: each is captioned by itself, and
            the caption of the whole is made of theirs.
        with_segments: Whether every window is captioned, too.
        temperature: Randomness of the caption; at 0 it is the most probable one.
        losses: What of the recording is missing or broken, in words.
        on_text: Called from the model's thread with the caption so far, after every token; None for nobody.
        gone: Set when nobody waits for the caption any more, so that the model stops writing it.
    """

    windows: torch.Tensor
    seconds: float
    prompt: str | None = None
    in_parts: bool = False
    with_segments: bool = False
    temperature: float = 0.0
    losses: Sequence[str] = ()
    on_text: Callable[[str], None] | None = None
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def rows(self) -> int:
        """Number of captions that the model writes: of the whole, of each of several windows, or of both."""
        return len(self.parts)

    @property
    def cost(self) -> int:
        """Number of windows that the model reads."""
        return sum(map(len, self.parts))

    @property
    def parts(self) -> list[torch.Tensor]:
        """What the model hears at once, each (windows, frames, mel bins): the whole, then each of several windows."""
        whole = [] if self.in_parts else [self.windows]
        each = self.in_parts or (self.with_segments and len(self.windows) > 1)
        return [*whole, *(self.windows.split(1) if each else ())]


@dataclass(frozen=True)
class Answer:
    """
    What the model says of one recording.

    Args:
        caption: Caption of the whole; of one in parts, what its windows say, each thing once.
        segments: Captions of its windows with `start` and `end` in seconds; empty unless asked for.
        seconds: Length of the recording.
        losses: What of it is missing or broken, in words.
    """

    caption: str
    segments: list[dict[str, Any]]
    seconds: float
    losses: Sequence[str] = ()


def caption_jobs(captioner: AudioCaptioningPipeline, jobs: Sequence[Job], num_beams: int | None) -> list[Answer]:
    """
    Caption a batch of recordings, each of which gets the caption that it would get alone.

    Prompts may differ within a call of `generate`, temperatures may not.

    Args:
        captioner: Pipeline of the model.
        jobs: Recordings with what is asked of them.
        num_beams: Beams of the search; None for what the model ships with.
    """
    answers: dict[Job, Answer] = {}
    for temperature in dict.fromkeys(job.temperature for job in jobs):
        group = [job for job in jobs if job.temperature == temperature]
        options: dict[str, Any] = {"num_beams": num_beams} if num_beams else {}
        if temperature:
            options |= {"do_sample": True, "temperature": temperature}
        answers |= zip(group, caption_group(captioner, group, options), strict=True)
    return [answers[job] for job in jobs]


def caption_group(
    captioner: AudioCaptioningPipeline, jobs: Sequence[Job], generate_kwargs: dict[str, Any]
) -> list[Answer]:
    """Caption recordings of one temperature in one call of `generate`; segments are rows of the same batch."""
    processor = captioner.processor
    default = processor.default_prompt
    blocks, counts, prompts, owners = [], [], [], []
    for job in jobs:
        blocks += job.parts
        counts += [len(part) for part in job.parts]
        prompts += [job.prompt or default] * job.rows
        owners += [job] * job.rows
    options = {**generate_kwargs, "stopping_criteria": StoppingCriteriaList([NobodyWaits(owners)])}
    beams = generate_kwargs.get("num_beams") or captioner.model.generation_config.num_beams or 1
    if beams == 1 and any(job.on_text and not job.in_parts for job in jobs):
        options["streamer"] = TextSoFar(owners, processor)
    texts = captioner.generate(torch.cat(blocks), counts, prompts, options)
    answers, start = [], 0
    for job in jobs:
        answers.append(make_answer(job, texts[start : start + job.rows], processor.feature_extractor.window_seconds))
        start += job.rows
    return answers


def make_answer(job: Job, texts: list[str], window_seconds: float) -> Answer:
    """Make the answer of a recording from what the model says of its `parts`."""
    times = segment_times(job.seconds, len(job.windows), window_seconds)
    captions = texts[-len(job.windows) :][: len(times)]  # a very short last window belongs to the one before it
    caption = join_captions(captions) if job.in_parts else texts[0]
    segments = []
    if job.with_segments:
        segments = [
            {"start": start, "end": end, "caption": text} for (start, end), text in zip(times, captions, strict=True)
        ]
    return Answer(caption, segments, job.seconds, job.losses)


class NobodyWaits(StoppingCriteria):
    """Ends the rows of recordings for which nobody waits any more; a batch of such rows ends at once."""

    def __init__(self, owners: Sequence[Job]):
        self.owners = owners

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Tell for every row of `input_ids`, (clips * beams, length), whether it is to end: (clips * beams,) bool."""
        gone = torch.tensor([job.gone.is_set() for job in self.owners], device=input_ids.device)
        return gone.repeat_interleave(len(input_ids) // len(gone))


class TextSoFar(BaseStreamer):
    """
    Gives each recording the text of its caption as it grows; one in parts, which grow together, gets none.

    Args:
        owners: The recording of every row; the first row of each is the caption of the whole.
        processor: Processor that decodes the tokens.
    """

    def __init__(self, owners: Sequence[Job], processor: Any):
        first = {job: row for row, job in reversed(list(enumerate(owners)))}
        self.rows = {row: job.on_text for job, row in first.items() if job.on_text and not job.in_parts}
        self.tokens: dict[int, list[int]] = {row: [] for row in self.rows}
        self.processor = processor
        self.prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Take the prompts, (clips, length), at the first call, and the newest tokens, (clips,), at the others."""
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        for row, tell in self.rows.items():
            self.tokens[row].append(int(value[row]))
            tell(self.processor.decode(self.tokens[row]))

    def end(self) -> None:
        """Nothing is left to give: whoever waits gets the whole caption as its answer."""
