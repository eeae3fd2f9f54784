"""
A MAC that knows everyday sounds, from ESC-50, a folder of everyday sounds and YAMNet, by one command.

    pip install ai-edge-litert
    python recipes/make_everyday.py --esc50 data/ESC-50 --everyday data/everyday --teacher yamnet.tflite

runs the commands of docs/everyday.md one after another, in `--folder`: manifests, scenes, a first MAC
(`everyday.yaml`), an encoder that hears anew, a language model that tells what it hears, an encoder that bears damage,
and the figures. The MAC is then in runs/hardened, the figures are in runs/results. What the commands print is kept in
runs/steps, and what is finished noted in runs/steps.json: the same command goes on where it was stopped, within a
step, too. To make a part anew, remove its folder and those of what comes after it.

`--trial` makes a few scenes, takes a few steps of everything and measures by one table, in some minutes, to see that
all of it runs here; a MAC that is worth anything does not come of it.
"""

import argparse
import json
import os
import shlex
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parent))

from everyday_steps import Step, StepFailed, Steps, Stopped


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
HEARD = [*RETOLD[:2], f"{EVERYDAY}/told-60", *RETOLD[2:]]
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
    plan = Plan(options)
    try:
        if options.list:
            print("\n".join([shlex.join(["cd", str(options.folder)]), *(step.command for step in plan.steps())]))
            return
        check_inputs(options)
        if not (options.trial or plan.has_gpu):
            print("No GPU is here: the step `heard` alone will take more than a week.", file=sys.stderr)
        Steps(plan.groups(), options.folder).run()
        print("\n".join(figures(options.folder)))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except StepFailed as error:
        sys.exit(f"{error}\nWhen that is mended, the same command goes on from there.")
    except Stopped:
        print("Stopped; the same command goes on from there.", file=sys.stderr)
        sys.exit(130)


def check_inputs(options: argparse.Namespace) -> None:
    """
    Refuse what is missing before hours are spent.

    Raises:
        ValueError: An input is not there, nothing that runs YAMNet, or a codec.
    """
    folders = {f"--audio {name}": options.esc50 / name for name in options.audio}
    files = {"--everyday": options.everyday / "manifest.csv", "--teacher": options.teacher}
    for given, path in (folders | files).items():
        if not (path.is_dir() if given in folders else path.is_file()):
            raise ValueError(f"{given}: {path} is not there; docs/everyday.md says how to get it.")
    if find_spec("ai_edge_litert") is None:
        raise ValueError("YAMNet is run by a package that is not installed: pip install ai-edge-litert")
    from everyday_damage import check_codecs  # here, for it imports torch, and each step imports this module

    check_codecs()


class Plan:
    """
    The steps from two folders of recordings to a MAC and its figures.

    Args:
        options: Options of the command.
    """

    def __init__(self, options: argparse.Namespace):
        from torch.cuda import is_available  # here, for that takes seconds, and each step imports this module

        self.options, self.trial, self.has_gpu = options, options.trial, is_available()
        self.esc50 = ["--esc50", str(options.esc50.resolve())]
        self.teacher = ["--teacher", str(options.teacher.resolve())]
        self.data = ["--data", f"{EVERYDAY}/train.csv"]
        self.bf16 = ["--bf16"] if options.bf16 else []

    def steps(self) -> list[Step]:
        """List the steps in their order."""
        return [step for group in self.groups() for step in group]

    def groups(self) -> list[list[Step]]:
        """List the steps in groups: those of a group may run side by side, each group needs what is before it."""
        retold = Step("retold", (script("retell_everyday"),), tuple(RETOLD), f"{RETOLD[-1]}/retold.csv")
        trainings = [self.first_mac(), self.heard(), self.told(), self.hardened()]
        tables = list(TABLES)[:1] if self.trial else list(TABLES)
        return [
            self.manifests(),
            [self.mix(name) for name in SCENES],
            *([step] for step in (retold, *trainings, *map(measure, tables))),
        ]

    def manifests(self) -> list[Step]:
        """Make the steps that list what is learnt from and measured by."""
        names, everyday = self.options.audio, str(self.options.everyday.resolve())
        first = ["--audio", names[0]]  # ESC-50 is measured by one of the folders
        return [
            recipe("prepare_esc50", [*self.esc50, *first], "runs/esc50", "validation.csv"),
            recipe(
                "prepare_everyday", [*self.esc50, "--audio", *names, "--everyday", everyday], EVERYDAY, "train.csv"
            ),
        ]

    def mix(self, name: str) -> Step:
        """Make the step that mixes a folder of scenes."""
        count, seed, heard, how = SCENES[name]
        count = max(FEWEST, count // FEWER) if self.trial else count
        words = [*self.data, *(self.teacher if heard else []), *how, "--seed", str(seed), "--scenes", str(count)]
        return recipe("mix_everyday", words, f"{EVERYDAY}/{name}")

    def first_mac(self) -> Step:
        """Make the step that trains by everyday.yaml."""
        here = ("--dataloader_num_workers", str(min(14, (os.cpu_count() or 1) - 1)))
        stages = range(1, STAGES + 1) if self.trial else ()
        words = [word for number in stages for word in (f"--stages.{number}.max_steps", "2")]
        program = ("-m", "training_mac.cli", str(RECIPES / "everyday.yaml"))
        return Step("mac-small", program, tuple(words), "runs/mac-small", here)

    def heard(self) -> Step:
        """Make the step that trains an encoder anew."""
        length = ["--steps", "8", "--batch", "8"] if self.trial else ["--steps", str(HEARING)]  # tags in the last two
        words = ["--model", "runs/mac-small", *self.data, *self.teacher, *length]
        return training("hear_everyday", words, "runs/heard", ("--compile",) if self.has_gpu else ())

    def told(self) -> Step:
        """Make the step that trains the language model."""
        words = [*HEARD, "--model", "runs/heard", *self.lasting(TELLING), *self.bf16]
        return training("tell_everyday", words, "runs/told")

    def hardened(self) -> Step:
        """Make the step that teaches the encoder to bear damage."""
        words = ["--model", "runs/told", *self.data, *self.lasting(HARDENING), *self.bf16]
        return training("harden_everyday", words, "runs/hardened")

    def lasting(self, minutes: int) -> list[str]:
        """Say how long a training takes."""
        return ["--steps", "2"] if self.trial else ["--minutes", str(minutes)]


def script(name: str) -> str:
    """Give the path of a script beside this one."""
    return str(RECIPES / f"{name}.py")


def recipe(name: str, words: list[str], output: str, makes: str = "") -> Step:
    """Make a step of a script that makes a folder, or last a file in it."""
    return Step(Path(output).name, (script(name),), (*words, "--output", output), str(Path(output, makes)))


def training(name: str, words: list[str], output: str, here: tuple[str, ...] = ()) -> Step:
    """Make a step of a script that trains a MAC."""
    return replace(recipe(name, words, output), here=here, is_training=True)


def measure(name: str) -> Step:
    """Make the step that measures by a table."""
    (table, words), output = TABLES[name], f"runs/results/{name}"
    line = ("--model", "runs/hardened", "--data", table, "--naming", words, "--output", output)
    program = ("-m", "evaluation_mac.cli", "captioning")
    return Step(f"results-{name}", program, line, f"{output}/results.json")


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
