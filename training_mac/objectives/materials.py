"""The parts that a run hands to an objective, which does not know the run's folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training_mac.data.tables import ClipTables


@dataclass(frozen=True)
class Materials:
    """
    The parts that a stage's trainer is made of.

    Args:
        model: Model to train, with its LoRA layers where a stage has some.
        processor: Processor that turns audio and texts into the model's inputs.
        tables: Tables with the clips of every source.
        scratch: Folder for large files that vanish with the process.
        teachers: Weights of each network to imitate, as earlier stages have trained it.
    """

    model: Any
    processor: Any
    tables: ClipTables
    scratch: Path
    teachers: list[dict[str, torch.Tensor]] = field(default_factory=list)
