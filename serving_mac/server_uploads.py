"""Reads what a client sends, within limits: the fields of the form, and the recording, which is decoded in memory."""

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message

from processing_mac.decoding_mac import losses_kept
from processing_mac.processing_mac import AUDIO_TOKEN

from .server_captions import Job
from .server_errors import ApiError
from .server_options import ServerOptions


LOG = logging.getLogger(__name__)

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
WITH_SEGMENTS = ("srt", "vtt", "verbose_json")
MAX_PROMPT = 2000  # characters
MAX_FIELDS, MAX_FIELD_BYTES = 32, 2**16
DRAIN_SECONDS = 5.0
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Question:
    """
    The fields of a request beside the recording.

    Args:
        prompt: What to ask; None for the model's own prompt.
        response_format: One of `FORMATS`.
        stream: Whether the caption is sent word by word.
        temperature: Randomness of the caption, from 0 to 1.
    """

    prompt: str | None = None
    response_format: str = "json"
    stream: bool = False
    temperature: float = 0.0

    @property
    def with_segments(self) -> bool:
        """Whether the answer tells what is heard when."""
        return self.response_format in WITH_SEGMENTS


def check_token(request: Request, token: str | None) -> None:
    """Refuse a client without the token. Comparing takes the same time wherever the two begin to differ."""
    if token is None:
        return
    kind, _, sent = request.headers.get("authorization", "").partition(" ")
    if not hmac.compare_digest(sent.strip().encode(), token.encode()) or kind.lower() != "bearer":
        raise ApiError(
            401,
            "no or a wrong token; expected the header `Authorization: Bearer TOKEN`",
            "invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


class LimitedBody:
    """
    The body of a request, which ends in an error beyond `max_bytes`, before more than that is stored.

    Args:
        request: Request whose body nobody has read yet.
        max_bytes: Greatest length of the body.
    """

    def __init__(self, request: Request, max_bytes: int):
        self.source = request
        self.max_bytes = max_bytes
        self.received = 0
        self.complete = False

    def limited(self) -> Request:
        """
        Give the request with the limited body.

        Raises:
            ApiError: The request says itself that it is longer.
        """
        stated = self.source.headers.get("content-length", "0")
        if stated.isdecimal():
            self.check(int(stated))
        return Request(self.source.scope, self.receive)

    async def receive(self) -> Message:
        """Receive the next message of the connection."""
        message = await self.source.receive()
        self.complete = not message.get("more_body", False)
        self.received += len(message.get("body", b""))
        self.check(self.received)
        return message

    def check(self, length: int) -> None:
        """Refuse a body of a length beyond the limit."""
        if length > self.max_bytes:
            told = f"the request is longer than {self.max_bytes / 1e6:g} MB, which is the limit"
            raise ApiError(413, told, "file_too_large", "file")

    async def drain(self) -> None:
        """
        Read and forget the rest, for a few seconds and up to twice the limit.

        A connection that is closed while a client still sends may be reset before the client has read the answer.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.complete and self.received <= 2 * self.max_bytes:
                    with suppress(ApiError):
                        await self.receive()


@asynccontextmanager
async def open_form(request: Request) -> AsyncIterator[FormData]:
    """
    Read the form of a request; its file is kept in memory or in a temporary file without a name.

    Raises:
        ApiError: It is no form, a broken one, or there is no room to keep it.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(400, "expected a form (multipart/form-data) with the fields `file` and `model`", "invalid_form")
    form = None
    try:
        form = await request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
        yield form
    except HTTPException as error:
        raise ApiError(400, f"the form cannot be read: {error.detail}", "invalid_form") from error
    except OSError as error:
        raise ApiError(507, f"the upload cannot be kept ({error.strerror or error})", "storage_full") from error
    finally:
        if form is not None:
            await form.close()


def read_question(form: FormData, options: ServerOptions) -> Question:
    """
    Read the fields of a form; whatever cannot be done is refused, and nothing is ignored.

    Raises:
        ApiError: A field is missing, unknown or has a value that this server does not serve.
    """
    readers: dict[str, Callable[[str], Any]] = {
        "prompt": read_prompt,
        "response_format": read_format,
        "stream": read_stream,
        "temperature": read_temperature,
    }
    question = Question()
    if "model" not in form:
        raise ApiError(400, f"`model` is missing; expected {options.name!r}", "missing_field", "model")
    for field, value in form.multi_items():
        if field == "file":
            continue
        if not isinstance(value, str):
            raise ApiError(400, f"`{field}` is a file; expected text", "invalid_value", field)
        if field in readers:
            question = replace(question, **{field: readers[field](value)})
        else:
            check_fixed(field, value, options)
    if question.stream and question.response_format != "json":
        told = f"`response_format` is {question.response_format!r}; with `stream` only 'json' is served"
        raise ApiError(400, told, "invalid_value", "response_format")
    return question


def check_fixed(field: str, value: str, options: ServerOptions) -> None:
    """Refuse any but the one value of a field that this server cannot change, and unknown fields."""
    if field == "model":
        if value != options.name:
            told = f"there is no model {value[:100]!r} here; expected {options.name!r}"
            raise ApiError(404, told, "model_not_found", "model")
        return
    fixed = {"language": options.language}
    fixed |= dict.fromkeys(("timestamp_granularities", "timestamp_granularities[]"), "segment")
    if field not in fixed:
        told = f"`{field[:100]}` is not served; expected file, model, prompt, response_format, stream, temperature"
        raise ApiError(400, told, "unknown_field", field[:100])
    if value != fixed[field]:
        raise ApiError(400, f"`{field}` is {value[:100]!r}; expected {fixed[field]!r}", "invalid_value", field)


def read_prompt(value: str) -> str | None:
    """Read a prompt; a blank one is the model's own."""
    if AUDIO_TOKEN in value:
        told = f"`prompt` holds {AUDIO_TOKEN}, which stands for the recording"
        raise ApiError(400, told, "invalid_value", "prompt")
    if len(value) > MAX_PROMPT:
        told = f"`prompt` has {len(value)} characters; expected at most {MAX_PROMPT}"
        raise ApiError(400, told, "invalid_value", "prompt")
    return value.strip() or None


def read_format(value: str) -> str:
    """Read the name of a format."""
    if value not in FORMATS:
        told = f"`response_format` is {value[:100]!r}; expected one of {', '.join(FORMATS)}"
        raise ApiError(400, told, "invalid_value", "response_format")
    return value


def read_stream(value: str) -> bool:
    """Read a truth value."""
    if value.lower() not in BOOLEANS:
        raise ApiError(400, f"`stream` is {value[:100]!r}; expected true or false", "invalid_value", "stream")
    return BOOLEANS[value.lower()]


def read_temperature(value: str) -> float:
    """Read a number from 0 to 1."""
    try:
        temperature = float(value)
    except ValueError:
        temperature = -1.0
    if not 0 <= temperature <= 1:
        told = f"`temperature` is {value[:100]!r}; expected a number from 0 to 1"
        raise ApiError(400, told, "invalid_value", "temperature")
    return temperature


def find_file(form: FormData) -> tuple[BinaryIO, str]:
    """
    Take the recording out of a form, with the name that errors give it; nothing is opened by that name.

    Raises:
        ApiError: There is none.
    """
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        told = "`file` is missing or was cut off" if upload is None else "`file` is text; expected an uploaded file"
        raise ApiError(400, told, "missing_field", "file")
    name = (upload.filename or "").replace("\\", "/").rpartition("/")[2]
    return upload.file, "".join(letter for letter in name if letter.isprintable())[:100] or "the file"


def decode(processor: Any, file: BinaryIO, name: str, question: Question, max_seconds: float) -> Job:
    """
    Decode a recording to the windows that the model reads; runs in a thread.

    Raises:
        ApiError: It cannot be read or is too long.
    """
    extractor = processor.feature_extractor
    try:
        with losses_kept() as losses:
            [waveform] = extractor.load({"bytes": file.read(), "path": name}, max_seconds=max_seconds)
    except ValueError as error:
        raise ApiError(400, str(error), "invalid_audio", "file") from error
    for loss in losses:  # text and subtitles have no place for them
        LOG.warning("%s", loss)
    windows = extractor.to_windows(extractor.raw_log_mel(waveform))
    return Job(
        windows=windows,
        seconds=len(waveform) / extractor.sampling_rate,
        prompt=question.prompt,
        in_parts=len(windows) > processor.trained_windows,
        with_segments=question.with_segments,
        temperature=question.temperature,
        losses=losses,
    )
