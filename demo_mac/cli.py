"""
`mac-demo`: a page in the browser to try a captioner.

    mac-demo                                # the checkpoint that ships, at http://127.0.0.1:7860
    mac-demo --model user/name --port 8000
"""

import argparse
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from processing_mac import DEFAULT_MODEL, load_captioner
from processing_mac.audio_mac import AUDIO_SUFFIXES
from processing_mac.caption_options_mac import check_device


# In a wheel the examples lie in this folder, in a clone (and an editable install) beside it.
_HERE = Path(__file__).parent
DEFAULT_EXAMPLES = _HERE / "examples" if (_HERE / "examples").is_dir() else _HERE.parent / "examples"


def main(arguments: list[str] | None = None) -> int:
    """Serve the page until interrupted, with exit status 0; exit with 2 if it cannot be served."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    check_device(parser, options)
    if missing := [name for name in ("gradio", "matplotlib") if find_spec(name) is None]:
        parser.error(
            f"needs {' and '.join(missing)}: pip install 'mamba-audio-captioning[demo]', in a clone '.[demo]'"
        )
    try:
        captioner = load_captioner(options.model, device=options.device, return_segments=True)
    except ValueError as error:
        parser.error(f"--model {error}")

    with TemporaryDirectory(prefix="mac-demo-") as recordings:  # of its own, so that its limit counts no other's
        # Before the import, which would call home.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": recordings}
        from .model_facts import read_facts
        from .page import build_page, serve

        facts = read_facts(options.model, captioner.model)
        page = build_page(captioner, find_examples(options.examples), facts)
        try:
            address = serve(page, options.host, options.port)
        except OSError:
            # gradio's own message is about an environment variable and an argument that this command does not have.
            place = f"{options.host}:{options.port}" if options.port else f"{options.host}, ports 7860 to 7959"
            parser.error(
                f"cannot listen at {place}: taken, or no address of this machine; try another --port or --host"
            )
        print(f"mac-demo: {address} (Ctrl-C ends it)", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that the recordings go, too
        page.block_thread()
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the options and their help."""
    parser = argparse.ArgumentParser(
        prog="mac-demo", description="A page in the browser: record or open a sound, and read what the model hears."
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="folder or Hub id (default: the packaged mac-small)")
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the first accelerator, else the CPU)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="(default: the first free one from 7860 on)")
    parser.add_argument(
        "--examples", type=Path, metavar="FOLDER", default=DEFAULT_EXAMPLES,
        help="sounds to offer (default: those that come with the package)",
    )  # fmt: skip
    return parser


def find_examples(folder: Path) -> list[str]:
    """Find the sounds in a folder in order of their names; none if the folder is missing."""
    return sorted(str(file) for file in folder.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)


if __name__ == "__main__":
    sys.exit(main())
