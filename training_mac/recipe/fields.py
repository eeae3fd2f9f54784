"""The fields of a recipe that are not data's: what is built, what trains, how it is validated and what is kept."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transformers import TrainingArguments

from processing_mac import DEFAULT_MODEL


@dataclass
class Recipe:
    """What MAC's training needs beyond its data and transformers' TrainingArguments."""

    # Where the model comes from
    base_model: str | None = field(
        default=None, metadata={"help": "MAC folder or Hub id to start from; 'mac-tiny' is the checkpoint that ships."}
    )
    base_audio_tower: str | None = field(
        default=None, metadata={"help": "Without a base model: pretrained EAT, a file, folder or Hub id."}
    )
    base_language_model: str | None = field(
        default=None, metadata={"help": "And the pretrained language model that a new connector joins to it."}
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Tokenizer of `base_language_model`; by default the one in its folder."}
    )
    model: dict = field(
        default_factory=dict,
        metadata={
            "help": "Fields of MacConfig for a new model, sub-configs as mappings; with pretrained towers those of "
            "the connector, and of what has learnt only the shares that training drops out."
        },
    )
    vocab_size: int = field(default=1000, metadata={"help": "Size of the BPE that a model from nothing gets."})
    A_init_range: list[float] | None = field(
        default=None,
        metadata={
            "help": "Least and greatest decay rate of the heads of a new Mamba-2, the smaller the longer it remembers "
            "at first; 1 to the number of heads if not given."
        },
    )

    # What a stage teaches
    objective: Literal["captions", "tags", "teacher"] = field(
        default="captions",
        metadata={
            "help": "'captions': the whole model; 'tags': its encoder alone, on the `source` column; 'teacher': on "
            "that column, too, a convolutional network for the encoder to imitate."
        },
    )
    teacher_width: int = field(
        default=32, metadata={"help": "Channels of the teacher's first block; its last has four times as many."}
    )
    imitate_teachers: bool = field(
        default=False,
        metadata={"help": "While it learns tags, the encoder also imitates the teachers of all earlier stages."},
    )
    average_checkpoints: int = field(
        default=0,
        metadata={"help": "End a stage on tags with the mean of its last so many checkpoints; 0: with the last."},
    )
    whiten: bool = field(
        default=False,
        metadata={"help": "Before tags, start the patch embedding from the principal components of the recordings."},
    )
    kept_patches: int = field(
        default=128, metadata={"help": "Patches of a window that enter the encoder while it learns tags."}
    )
    loss_on: Literal["answer", "all"] = field(
        default="answer", metadata={"help": "'answer': learn the answers only; 'all': the prompts too, as LTU."}
    )
    packing: bool = field(
        default=False,
        metadata={"help": "Write the clips of a batch one after another in one row, without padding (Mamba-2 only)."},
    )

    cached_epochs: int = field(
        default=0,
        metadata={
            "help": "Epochs of examples that a frozen encoder encodes once, for all epochs to read; 0: each anew."
        },
    )
    encoding_mix: float = field(
        default=0.0,
        metadata={"help": "With `cached_epochs`: mix up to this share of another example's encoding into each."},
    )

    # What trains, and how fast
    encoder: Literal["frozen", "lora", "full"] = field(default="full", metadata={"help": "How the encoder trains."})
    connector: Literal["frozen", "full"] = field(default="full", metadata={"help": "How the connector trains."})
    language_model: Literal["frozen", "lora", "full"] = field(
        default="full", metadata={"help": "How the language model trains."}
    )
    encoder_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the encoder; `learning_rate` if not given."}
    )
    connector_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the connector; `learning_rate` if not given."}
    )
    language_model_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the language model; `learning_rate` if not given."}
    )
    encoder_layer_decay: float = field(
        default=1.0, metadata={"help": "Factor of the learning rate from each encoder block to the one below it."}
    )
    lora_rank: int = field(default=8, metadata={"help": "Rank r of the LoRA matrices; the paper's: 8 and 256."})
    lora_alpha: float | None = field(default=None, metadata={"help": "LoRA's scale times r; 2 r if not given."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the LoRA matrices."})
    lora_targets: list[str] = field(
        default_factory=lambda: ["in_proj", "out_proj"],
        metadata={"help": "Layers of the language model that LoRA adapts; Mamba-2's projections by default."},
    )
    encoder_lora_targets: list[str] = field(
        default_factory=lambda: ["qkv", "proj"], metadata={"help": "Layers of the encoder that LoRA adapts."}
    )

    # Validation and faults
    eval_metrics: list[str] = field(
        default_factory=lambda: ["bleu", "rouge_l", "cider_d"],
        metadata={"help": "Metrics of `evaluation_mac.score_captions`; meteor, spice and spider need Java."},
    )
    naming: str | None = field(
        default=None,
        metadata={"help": "Word lists by which validation counts captions that name their clip's `source`: 'esc50'."},
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a better `metric_for_best_model`."},
    )
    max_nan_steps: int = field(
        default=3,
        metadata={"help": "Stop at so many steps in a row without a finite gradient; such steps change no weight."},
    )

    # What is kept
    merge_adapter: bool = field(
        default=False, metadata={"help": "Write the LoRA matrices into the weights: a whole model, no adapter."}
    )
    store_float16: bool = field(
        default=False, metadata={"help": "Write the final weights as float16; they load as float32."}
    )
    stages: list[dict] = field(
        default_factory=list,
        metadata={"help": "Overrides of any field, one mapping a stage; stages run one after another."},
    )

    def __post_init__(self) -> None:
        self.base_model = shipped_model(self.base_model) if self.base_model else None


def shipped_model(name: str) -> str:
    """Where a model is: the checkpoint that ships by its name, any other where its folder or Hub id says."""
    is_shipped = name == Path(DEFAULT_MODEL).name and not Path(name).is_dir()
    return DEFAULT_MODEL if is_shipped else name


@dataclass
class MacTrainingArguments(TrainingArguments):
    """transformers' own, with the defaults that MAC's data and faults need."""

    output_dir: str | None = field(
        default="runs/mac", metadata={"help": "Folder of the run: the model at its end, stages and checkpoints below."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: the collator reads what the model does not."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Whether a resumed run keeps the patience of early stopping."}
    )
    accelerator_config: dict | str | None = field(
        # Slicing a batch of one process for all would cut clips of several windows apart.
        default_factory=lambda: {"dispatch_batches": False},
        metadata={"help": "Fields of accelerate's AcceleratorConfig, as a mapping or JSON file."},
    )
