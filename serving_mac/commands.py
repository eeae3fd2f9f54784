"""
Where the commands begin: most of their start is imports, during which Ctrl-C is caught and the collector rests.

`pyproject.toml` names a function of this file for each command. It imports nothing that takes long itself.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module


@contextmanager
def collector_resting() -> Iterator[None]:
    """
    Let Python's cyclic garbage collector rest, and leave what is made meanwhile out of all that it does later.

    torch and transformers make a million objects on import, nearly all of which live as long as the process. The
    collector looks through them again and again while they are made, and once more when the process ends, in all for
    more than a second. Afterwards it is on, for what the command then makes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def run(command: str, module: str) -> int | None:
    """
    Run the `main` of a module, by the arguments that the command was given.

    Args:
        command: Name of the command, for what is said after Ctrl-C.
        module: Name of the module.

    Returns:
        The exit code; None for 0, and 130 after Ctrl-C.
    """
    try:
        with collector_resting():
            main = import_module(module).main
        return main()
    except KeyboardInterrupt:
        print(f"{command}: stopped.", file=sys.stderr)
        return 130


caption = partial(run, "mac-caption", "processing_mac.cli_mac")
convert = partial(run, "mac-convert", "modeling_mac.convert_cli_mac")
demo = partial(run, "mac-demo", "demo_mac.cli")
evaluate = partial(run, "mac-eval", "evaluation_mac.cli")
index = partial(run, "mac-index", "serving_mac.index_cli")
paraphrase = partial(run, "mac-paraphrase", "training_mac.data.paraphrase_cli")
search = partial(run, "mac-search", "serving_mac.search_cli")
serve = partial(run, "mac-serve", "serving_mac.server_cli")
study = partial(run, "mac-study", "study_mac.cli")
train = partial(run, "mac-train", "training_mac.cli")
