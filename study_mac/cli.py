"""
`mac-study`: a design space, trained, scored and drawn. The same command again goes on where it was stopped.

    mac-study recipes/studies/esc50.yaml --dry-run
    mac-study paper --dry-run --time-steps               # hours on this machine, from steps that are timed
    mac-study paper --only size=130m --launch "accelerate launch --config_file recipes/accelerate/ddp.yaml"
    mac-study recipes/studies/paper.yaml --shard 1/4      # on the first of four machines that share the folder
    mac-study recipes/studies/paper.yaml --ray --ray-gpus 1
    mac-study recipes/studies/esc50.yaml --report-only
"""

import argparse
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from study_mac.dry_run import print_costs
from study_mac.evaluations import check_evaluations
from study_mac.report import write_study
from study_mac.running import CellError
from study_mac.scheduling import run_here, run_on_ray
from study_mac.study_file import choose, read_study
from training_mac.recipe.file import recipes_folder
from training_mac.run.building import quieten


def main(arguments: list[str] | None = None) -> int:
    """Run and report: 0 if every chosen cell is finished, 1 if one failed, 2 (by exit) if the study
    cannot be run, 130 if it was stopped."""
    quieten()
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.time_steps and not options.dry_run:
        parser.error("--time-steps is for --dry-run")
    if options.ray and find_spec("ray") is None:
        parser.error("--ray needs Ray: pip install 'mamba-audio-captioning[ray]'")
    try:
        study = read_study(find_study(options.study))
        cells = choose(study, options.only, options.shard)
        check_evaluations(study, is_data_here=not (options.dry_run or options.report_only))
        if options.dry_run:
            print_costs(study, cells, options.time_steps)
            return 0
        failed = {}
        if options.ray:
            failed = run_on_ray(study, cells, options.launch, options.ray_gpus)
        elif not options.report_only:
            failed = run_here(study, cells, options.launch)
        page = write_study(study, {cell.name: reason for cell, reason in failed.items()})
    except (OSError, ValueError, CellError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("mac-study: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    except StrictDataclassError as error:  # parts of a cell do not fit each other; the cause names both
        parser.error(str(error.__cause__ or error))
    for cell, reason in failed.items():
        print(f"mac-study: {cell.name}: {reason}", file=sys.stderr)
    print(f"Tables, figures and the page: {page}")
    return 1 if failed else 0


def build_parser() -> argparse.ArgumentParser:
    """The options and their help."""
    parser = argparse.ArgumentParser(
        prog="mac-study",
        description="Train and compare the cells of a design space.",
        epilog="Exit code: 0 all finished, 1 some cells failed, 2 nothing could be done.",
    )
    parser.add_argument("study", help=f"a study's file, or the name of one that ships: {', '.join(shipped_studies())}")
    parser.add_argument("--only", action="append", default=[], metavar="AXIS=VALUE", help="may be given again: both")
    parser.add_argument("--shard", type=shard, metavar="I/N", help="the I-th of N parts of the cells, from 1")
    parser.add_argument("--dry-run", action="store_true", help="print what each cell would cost, train nothing")
    parser.add_argument("--time-steps", action="store_true", help="with --dry-run: time steps of large models, too")
    parser.add_argument("--report-only", action="store_true", help="tables and figures of what is finished")
    parser.add_argument("--launch", default="", metavar="WORDS", help="'accelerate launch --config_file FILE', say")
    parser.add_argument("--ray", action="store_true", help="cells as tasks on the Ray cluster of this machine")
    parser.add_argument("--ray-gpus", type=float, default=0, metavar="N", help="GPUs of a cell (default: none)")
    return parser


def shard(text: str) -> tuple[int, int]:
    """`I/N`."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text}: expected I/N, from 1/N to N/N")
    return int(found[1]), int(found[2])


def shipped_studies() -> list[str]:
    """The names of the studies that ship."""
    files = (recipes_folder() / "studies").glob("*.yaml")
    return sorted(file.stem for file in files if not file.stem.endswith("_base"))


def find_study(name: str) -> Path:
    """A file, or a study that ships."""
    shipped = recipes_folder() / "studies" / f"{name}.yaml"
    return shipped if not Path(name).is_file() and shipped.is_file() and Path(name).name == name else Path(name)


if __name__ == "__main__":
    sys.exit(main())
