"""
The command `mac-serve`: captions for programs, over HTTP, in the interface of OpenAI's transcriptions.

    mac-serve                                          # the checkpoint that ships, at http://127.0.0.1:8000
    mac-serve --model user/name --host 0.0.0.0 --token-file token.txt
    curl -F file=@dog.wav -F model=mac-small http://127.0.0.1:8000/v1/audio/transcriptions
"""

import argparse
import math
import os
import signal
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from processing_mac import DEFAULT_MODEL, load_captioner
from processing_mac.caption_options_mac import check_device, positive
from processing_mac.unread_options_mac import refuse_given

from .server_loading import load_for_service, loading_beside_workers
from .server_options import ServerOptions


NEEDED = ("fastapi", "uvicorn", "prometheus_client", "pysubs2", "python_multipart")
TOKEN_VARIABLE = "MAC_SERVE_TOKEN"


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted, with exit status 0; exit with 2 if nothing can be served."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    check_device(parser, options)
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        parser.error(
            f"needs {' and '.join(missing)}: pip install 'mamba-audio-captioning[serve]', in a clone '.[serve]'"
        )
    try:
        if options.ray is None:
            refuse_given(parser, options, ["replicas"], "only --ray has replicas")
        if os.path.isdir(options.model):
            refuse_given(parser, options, ["revision"], f"--model is the folder {options.model}, without revisions")
        limits = read_options(options)
        if options.ray is not None:
            return serve_replicas(options, limits)
        captioner = load_for_service(options.model, loading_options(options))
        listener = listen(options.host, options.port)
    except ValueError as error:
        parser.error(str(error))

    import uvicorn

    from .server_app import CaptionService, make_app

    config = uvicorn.Config(
        make_app(CaptionService(captioner, limits)),
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(limits.timeout_seconds),  # what was begun is finished
    )
    host, port = listener.getsockname()[:2]
    place = f"[{host}]" if ":" in host else host  # of IPv6
    print(f"mac-serve: {limits.name} at http://{place}:{port} (Ctrl-C ends it)", flush=True)
    # uvicorn raises a signal again after it has finished what was begun and shut down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def listen(host: str, port: int) -> socket.socket:
    """
    Open the socket of the server.

    Raises:
        ValueError: It is taken, or no address of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise ValueError(f"cannot listen at {host}:{port} ({error}); try another --port or --host") from error


def serve_replicas(options: argparse.Namespace, limits: ServerOptions) -> int:
    """Serve on Ray until a signal comes, and return the exit status."""
    if find_spec("ray") is None:
        raise ValueError("--ray needs Ray: pip install 'mamba-audio-captioning[ray]', in a clone '.[ray]'")
    with listen(options.host, options.port) as probe:  # Ray's own words for a taken port are few
        place = probe.getsockname()[:2]
    loading = loading_options(options)
    # What cannot be loaded is told here, not by replicas; the CPU is all that this machine must have.
    load_captioner(options.model, **loading | loading_beside_workers(options.device, options.int8, options.compile))
    from .server_ray import serve_on_ray

    serve_on_ray(options.ray or None, place, options.model, loading, limits, options.replicas)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the options and their help."""
    parser = argparse.ArgumentParser(
        prog="mac-serve",
        usage="%(prog)s [options]",  # short, since errors stand below it
        description="Serve captions over HTTP, as OpenAI's POST /v1/audio/transcriptions does transcripts.",
        epilog=f"A token may stand in {TOKEN_VARIABLE}, too. Exit code: 0 ended, 2 nothing could be served.",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="folder or Hub id (default: the packaged mac-small)")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub (default: main)")
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the first accelerator, else the CPU)")
    parser.add_argument("--num-beams", type=positive, help="beams of the search (default: what the model ships with)")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="of the weights (default: that of the model); bfloat16 is faster on a CPU with avx512_bf16 or amx",
    )
    parser.add_argument("--int8", action="store_true", help="round the weights to 8 bits: less memory, faster words")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="decode a Mamba-2 as one piece: on a GPU as a CUDA graph, on the CPU a large one of 8 bits (--int8) in "
        "C++, after some seconds at the start",
    )
    parser.add_argument("--name", help="what clients send as `model` (default: the last part of --model)")
    parser.add_argument("--language", default="en", help="language of the captions (default: en)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one (default: 8000)")
    parser.add_argument("--token-file", type=Path, help="file with the token that clients must send (default: none)")
    ray = parser.add_argument_group("on a cluster", "these need the extra [ray], too; see docs/serving.md")
    ray.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="serve on this Ray cluster; on this machine without one"
    )
    ray.add_argument("--replicas", type=positive, default=1, help="models on Ray, each with the limits (default: 1)")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-batch", type=positive, default=8, help="recordings in a batch (default: 8)")
    limits.add_argument(
        "--batch-wait", type=not_negative, default=20.0, metavar="MS",
        help="how long the first of a batch waits for others, in milliseconds (default: 20)",
    )  # fmt: skip
    limits.add_argument(
        "--max-megabytes", type=above_zero, default=25.0, metavar="MB", help="size of a request (default: 25)"
    )
    limits.add_argument(
        "--max-seconds", type=above_zero, default=600.0, metavar="S", help="length of a recording (default: 600)"
    )
    limits.add_argument(
        "--max-requests", type=positive, default=64, help="requests inside at a time; others get 429 (default: 64)"
    )
    limits.add_argument(
        "--timeout", type=above_zero, default=60.0, metavar="S", help="from head to answer (default: 60)"
    )
    return parser


def read_options(options: argparse.Namespace) -> ServerOptions:
    """
    Make the server's options of the command's.

    Raises:
        ValueError: The token's file cannot be read or is empty.
    """
    return ServerOptions(
        name=options.name or Path(os.path.abspath(options.model)).name,
        language=options.language,
        num_beams=options.num_beams,
        max_batch=options.max_batch,
        batch_wait_ms=options.batch_wait,
        max_megabytes=options.max_megabytes,
        max_seconds=options.max_seconds,
        max_requests=options.max_requests,
        timeout_seconds=options.timeout,
        token=read_token(options.token_file),
    )


def loading_options(options: argparse.Namespace) -> dict[str, Any]:
    """Take the arguments of `load_captioner` beside the model out of the command's options."""
    return {name: getattr(options, name) for name in ("revision", "device", "dtype", "int8", "compile")}


def read_token(file: Path | None) -> str | None:
    """Read the token from its file or, without one, from the environment; it never stands in a list of processes."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--token-file {file}: cannot be read ({error})") from error
    if not token:
        raise ValueError(f"--token-file {file}: is empty; expected a token")
    return token


def above_zero(text: str) -> float:
    """Read a number above 0."""
    number = read_number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text!r}")
    return number


def not_negative(text: str) -> float:
    """Read a number of at least 0."""
    number = read_number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, not {text!r}")
    return number


def read_number(text: str) -> float:
    """Read a number; what is none is taken for NaN, which no limit allows."""
    try:
        return float(text)
    except ValueError:
        return math.nan


if __name__ == "__main__":
    sys.exit(main())
