"""What a run hands to an objective, which knows nothing of the run's folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training_mac.data.tables import ClipTables


@dataclass(frozen=True)
class Materials:
    """
    What a stage's trainer is made of.

    Args:
        model: The model to train, with its LoRA layers where a stage has some.
        processor: Turns audio and texts into its inputs.
        tables: The clips of every source.
        scratch: Folder for large files that are gone with the process.
        teachers: Weights of each network to imitate, that earlier stages have trained.
    """

    model: Any
    processor: Any
    tables: ClipTables
    scratch: Path
    teachers: list[dict[str, torch.Tensor]] = field(default_factory=list)
