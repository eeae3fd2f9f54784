"""
Bring the remote-code files of every model card up to date: `make cards`.

A folder `model_cards/NAME` is what goes to the Hub, so it holds copies of the package files that
`trust_remote_code=True` needs. A test proves them identical.
"""

import shutil
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files


ROOT = Path(__file__).resolve().parents[1]
ENTRY_POINTS = (
    "modeling_mac/modeling_mac.py",
    "processing_mac/feature_extraction_mac.py",
    "processing_mac/processing_mac.py",
    "processing_mac/pipeline_mac.py",
)


def remote_code_files() -> list[Path]:
    """The package files that travel: the entry points and all that they import from beside them."""
    entries = [ROOT / name for name in ENTRY_POINTS]
    imported = [Path(name) for entry in entries for name in get_relative_import_files(entry)]
    return sorted({*entries, *imported})


def card_folders() -> list[Path]:
    """Every `model_cards/NAME` that holds a model."""
    return sorted(config.parent for config in Path(__file__).parent.glob("*/config.json"))


if __name__ == "__main__":
    for folder in card_folders():
        for stale in folder.glob("*.py"):
            stale.unlink()
        for file in remote_code_files():
            shutil.copy(file, folder)
        print(f"{folder.relative_to(ROOT)}: {len(remote_code_files())} files")
