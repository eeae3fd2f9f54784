"""The data fields of a recipe."""

from dataclasses import dataclass, field


@dataclass
class DataRecipe:
    """What to learn from and what to validate on."""

    train_manifest: str = field(metadata={"help": "CSV or JSONL manifest of the recordings to learn from."})
    eval_manifest: str | None = field(default=None, metadata={"help": "Manifest of the recordings to validate on."})
    audio_root: str | None = field(
        default=None, metadata={"help": "Folder that audio paths are relative to; the manifest's by default."}
    )
    prompt: str | None = field(
        default=None, metadata={"help": "The prompt that captions answer; the model's default if not given."}
    )
    join_probability: float = field(
        default=0.0, metadata={"help": "Share of windows with a second clip after the first."}
    )
    overlay_probability: float = field(default=0.0, metadata={"help": "Share of windows with two clips at once."})
