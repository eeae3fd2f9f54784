"""Writes answers in the formats of OpenAI's interface."""

import json
import math
import zlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import JSONResponse, PlainTextResponse, Response

from processing_mac.segment_files_mac import write_segments

from .server_captions import Answer
from .server_errors import ApiError
from .server_uploads import Question


SUBTITLE_TYPES = {"srt": "application/x-subrip", "vtt": "text/vtt"}
FRAMES_PER_SECOND = 100  # of the log-mel, in which `seek` counts


def format_answer(answer: Answer, question: Question, language: str) -> Response:
    """Write an answer in the format that was asked for."""
    kind = question.response_format
    if kind == "text":
        return PlainTextResponse(answer.caption + "\n")
    if kind in SUBTITLE_TYPES:
        return Response(write_segments(answer.segments, kind), media_type=f"{SUBTITLE_TYPES[kind]}; charset=utf-8")
    body: dict[str, Any] = {"text": answer.caption, "usage": usage(answer), **warnings_of(answer)}
    if kind == "verbose_json":
        segments = [describe_segment(*item, question.temperature) for item in enumerate(answer.segments)]
        body |= {"task": "transcribe", "language": language, "duration": answer.seconds, "segments": segments}
    return JSONResponse(body)


def usage(answer: Answer) -> dict[str, Any]:
    """Say how much audio was heard, in whole seconds."""
    return {"type": "duration", "seconds": math.ceil(answer.seconds)}


def warnings_of(answer: Answer) -> dict[str, list[str]]:
    """Say what of the recording is missing or broken, if anything is; a field that is ours alone."""
    return {"warnings": list(answer.losses)} if answer.losses else {}


def describe_segment(number: int, segment: dict[str, Any], temperature: float) -> dict[str, Any]:
    """Write a segment with those of Whisper's fields that have a meaning for captions."""
    text = segment["caption"].encode()
    return {
        "id": number,
        "seek": round(segment["start"] * FRAMES_PER_SECOND),
        "start": segment["start"],
        "end": segment["end"],
        "text": segment["caption"],
        "temperature": temperature,
        "compression_ratio": len(text) / len(zlib.compress(text)),
    }


async def stream_answer(pieces: AsyncIterator[str | Answer | ApiError]) -> AsyncIterator[str]:
    """
    Write server-sent events: a `transcript.text.delta` for what is new, at last `transcript.text.done` or an error.

    Args:
        pieces: The caption so far, again and again, at last the answer or an error.
    """
    sent = ""
    async for piece in pieces:
        if isinstance(piece, ApiError):
            yield event({"type": "error", **piece.body()})
            return
        text = piece if isinstance(piece, str) else piece.caption
        # A letter of several bytes may not be whole yet; and cleaning may still take back a blank.
        if text.startswith(sent) and not (isinstance(piece, str) and text.endswith("\N{REPLACEMENT CHARACTER}")):
            if delta := text[len(sent) :]:
                yield event({"type": "transcript.text.delta", "delta": delta})
            sent = text
        if isinstance(piece, Answer):
            yield event({"type": "transcript.text.done", "text": text, "usage": usage(piece), **warnings_of(piece)})


def event(data: dict[str, Any]) -> str:
    """Write one server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
