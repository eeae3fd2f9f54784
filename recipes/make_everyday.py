"""
A MAC that knows everyday sounds, from ESC-50, a folder of everyday sounds and YAMNet, by one command.

    pip install ai-edge-litert
    python recipes/make_everyday.py --esc50 data/ESC-50 --everyday data/everyday --teacher yamnet.tflite

runs the commands of docs/everyday.md one after another, in `--folder`: manifests, scenes, a first MAC
(`everyday.yaml`), an encoder that hears anew, a language model that tells what it hears, an encoder that bears damage,
and the figures. The MAC is then in runs/hardened, the figures are in runs/results. What is finished is noted in
runs/make_everyday.json: the same command goes on where it was stopped, within a step, too.

`--trial` makes a few scenes and takes a few steps of everything, in some minutes, to see that all of it runs here; a
MAC that is worth anything does not come of it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import torch


sys.path.insert(0, str(Path(__file__).parent))

from everyday_steps import Step, Steps


RECIPES = Path(__file__).resolve().parent
EVERYDAY = "runs/everyday"
# Folders of scenes: how many, their seed, whether YAMNet hears them, and what else is asked of `mix_everyday.py`.
LONG, FAMILIAR = ("--seconds", "60"), ("--strange", "0.05")
SCENES: dict[str, tuple[int, int, bool, tuple[str, ...]]] = {
    **{f"scenes-{seed}": (1800, seed, True, ()) for seed in range(15)},
    **{f"minutes-{number}": (400, 100 + number, False, LONG) for number in range(2)},
    "told-50": (3500, 50, True, ("--overlaps", "0.42", *FAMILIAR)),
    "told-51": (3500, 51, True, ("--overlaps", "0.42", *FAMILIAR)),
    "told-60": (3500, 60, True, ("--overlaps", "0.6", *FAMILIAR)),
    "long-50": (400, 150, True, (*LONG, *FAMILIAR)),
    "long-51": (400, 151, True, (*LONG, *FAMILIAR)),
}
RETOLD = [f"{EVERYDAY}/{name}" for name in ("told-50", "told-51", "scenes-0", "long-50", "long-51")]
HEARD = [*RETOLD, f"{EVERYDAY}/told-60"]
STAGES = 5  # of everyday.yaml
HEARING = 8573  # steps, which an H100 takes in nine minutes
TELLING, HARDENING = 60, 45  # minutes
FEWER, FEWEST = 50, 12  # by how many a trial divides the scenes, and how many there are at least
TABLES = {  # a manifest for each figure, and whose words name its sounds
    **{
        name: (f"{EVERYDAY}/{name}.csv", "everyday")
        for name in ("plain", "signals", "validation", "voices", "over", "left_out", "minutes")
    },
    "fold5": ("runs/esc50/validation.csv", "esc50"),
    "pairs": ("runs/esc50/pairs.csv", "esc50"),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc50", type=Path, required=True, help="folder of ESC-50")
    parser.add_argument("--audio", nargs="+", default=["audio"], metavar="FOLDER",
                        help="its sub-folders, of the same recordings (default: audio)")  # fmt: skip
    parser.add_argument("--everyday", type=Path, required=True, help="folder that gather_everyday.py makes")
    parser.add_argument("--teacher", type=Path, required=True, help="yamnet.tflite")
    parser.add_argument("--folder", type=Path, default=Path(), help="in which runs/ is made (default: here)")
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16: faster where a processor knows it")
    parser.add_argument("--trial", action="store_true", help="a few scenes and steps of everything")
    parser.add_argument("--list", action="store_true", help="print the commands, and run none")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        groups = plan(options)
        if options.list:
            print("\n".join(step.command for group in groups for step in group))
            return
        check_inputs(options)
        Steps(groups, options.folder, options.folder / "runs" / "make_everyday.json").run()
        print("\n".join(figures(options.folder)))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd}\nfailed; what it says is above. The same command as before goes on from there.")
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from there.")


def interrupt(number: int, frame: FrameType | None) -> None:
    """End as at Ctrl-C, so that nothing that was started runs on."""
    raise KeyboardInterrupt


def check_inputs(options: argparse.Namespace) -> None:
    """
    Refuse what is missing before hours are spent.

    Raises:
        ValueError: An input is not there, or nothing that runs YAMNet.
    """
    wanted = {"esc50": options.esc50, "everyday": options.everyday / "manifest.csv", "teacher": options.teacher}
    for name, path in wanted.items():
        if not path.exists():
            raise ValueError(f"--{name}: {path} is not there; docs/everyday.md says how to get it.")
    if find_spec("ai_edge_litert") is None:
        raise ValueError("YAMNet is run by a package that is not installed: pip install ai-edge-litert")


def plan(options: argparse.Namespace) -> list[list[Step]]:
    """List the steps in groups: those of a group may run side by side, and each group needs what is before it."""
    esc50, everyday = str(options.esc50.resolve()), str(options.everyday.resolve())
    gpu, bf16 = torch.cuda.is_available(), ["--bf16"] if options.bf16 else []
    teacher, data = ["--teacher", str(options.teacher.resolve())], ["--data", f"{EVERYDAY}/train.csv"]

    def recipe(script: str, *words: str, output: str, makes_mac: bool = False) -> Step:
        line = (str(RECIPES / f"{script}.py"), *words, "--output", output)
        return Step(Path(output).name, line, output if makes_mac else None)

    def lasting(minutes: int) -> list[str]:
        return ["--steps", "2"] if options.trial else ["--minutes", str(minutes)]

    def mix(name: str) -> Step:
        count, seed, heard, how = SCENES[name]
        count = max(FEWEST, count // FEWER) if options.trial else count
        words = [*data, *(teacher if heard else []), *how, "--seed", str(seed), "--scenes", str(count)]
        return recipe("mix_everyday", *words, output=f"{EVERYDAY}/{name}")

    folders = ["--audio", *options.audio]
    first = ["--dataloader_num_workers", str(min(14, (os.cpu_count() or 1) - 1))]
    first += ["--tf32", "true"] if gpu else []
    hearing = ["--steps", str(HEARING), *(["--compile"] if gpu else [])]
    if options.trial:
        first += [word for number in range(1, STAGES + 1) for word in (f"--stages.{number}.max_steps", "2")]
        hearing = ["--steps", "8", "--batch", "8"]  # in a quarter of them it learns tags
    tables = list(TABLES)[:1] if options.trial else list(TABLES)
    return [
        [
            recipe("prepare_esc50", "--esc50", esc50, *folders[:2], output="runs/esc50"),
            recipe("prepare_everyday", "--esc50", esc50, *folders, "--everyday", everyday, output=EVERYDAY),
        ],
        [mix(name) for name in SCENES],
        [Step("retold", (str(RECIPES / "retell_everyday.py"), *RETOLD))],
        [Step("mac-small", ("-m", "training_mac.cli", str(RECIPES / "everyday.yaml"), *first))],
        [recipe("hear_everyday", "--model", "runs/mac-small", *data, *teacher, *hearing, output="runs/heard",
                makes_mac=True)],
        [recipe("tell_everyday", *HEARD, "--model", "runs/heard", *lasting(TELLING), *bf16, output="runs/told",
                makes_mac=True)],
        [recipe("harden_everyday", "--model", "runs/told", *data, *lasting(HARDENING), *bf16, output="runs/hardened",
                makes_mac=True)],
        *([measure(name)] for name in tables),
    ]  # fmt: skip


def measure(name: str) -> Step:
    """Make the step that measures by a table."""
    table, words = TABLES[name]
    line = ("--model", "runs/hardened", "--data", table, "--naming", words, "--output", f"runs/results/{name}")
    return Step(f"results of {name}", ("-m", "evaluation_mac.cli", "captioning", *line))


def figures(folder: Path) -> list[str]:
    """Say what was measured, a line for each table."""
    lines = []
    for name in TABLES:
        path = folder / "runs" / "results" / name / "results.json"
        if path.is_file():
            scores = json.loads(path.read_text(encoding="utf-8"))["scores"].items()
            shares = [(key, one["value"]) for key, one in scores if key.startswith(("naming", "noticed", "claimed"))]
            lines.append(f"{name}: " + ", ".join(f"{key} {100 * share:.1f} %" for key, share in shares))
    return lines


if __name__ == "__main__":
    main()
