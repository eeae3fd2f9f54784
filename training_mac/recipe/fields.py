"""The fields of a recipe beside those of data: what is built, what trains, how it is validated and what is kept."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from transformers import TrainingArguments

from processing_mac import SHIPPED_MODELS
from training_mac.recipe.data_fields import DataRecipe, Help


Objective = Literal["captions", "tags", "teacher", "embeddings", "masked_patches", "distillation", "mohawk"]


@dataclass
class Recipe:
    """
    The fields of MAC's training beyond those of its data and of transformers' TrainingArguments.

    Marks of a field's help: `base` says what model a run starts from and `lora` how its LoRA layers are made, so
    neither may differ between stages; `run` is done once, with all stages behind it; `free` may change when a run goes
    on, for it touches what is shown, kept and sent, but no weight.
    """

    # Where the model comes from
    base_model: str | None = field(
        default=None,
        metadata={"help": Help("MAC folder or Hub id to start from; 'mac-small' and 'mac-tiny' ship.", "base")},
    )
    base_audio_tower: str | None = field(
        default=None,
        metadata={"help": Help("Without a base model: pretrained EAT, a file, folder or Hub id.", "base")},
    )
    base_language_model: str | None = field(
        default=None,
        metadata={"help": Help("And the pretrained language model that a new connector joins to it.", "base")},
    )
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": Help(
                "Tokenizer of `base_language_model`, by default its own; or of a new model, in place of a BPE.",
                "base",
            )
        },
    )
    encoder_of: str | None = field(
        default=None,
        metadata={"help": Help("MAC folder or Hub id whose encoder a new model starts with.", "base")},
    )
    model: dict = field(
        default_factory=dict,
        metadata={
            "help": Help(
                "Fields of MacConfig for a new model, sub-configs as mappings; with pretrained towers those of "
                "the connector, and of what has learnt only the shares that training drops out.",
                "base",
            )
        },
    )
    vocab_size: int = field(
        default=1000, metadata={"help": Help("Size of the BPE that a model from nothing gets.", "base")}
    )
    A_init_range: list[float] | None = field(
        default=None,
        metadata={
            "help": Help(
                "Least and greatest decay rate of the heads of a new Mamba-2, the smaller the longer it remembers "
                "at first; 1 to the number of heads if not given.",
                "base",
            )
        },
    )

    # What a stage teaches
    objective: Objective = field(
        default="captions",
        metadata={
            "help": "'captions': the whole model; 'tags': its encoder alone, on the `source` column; 'teacher': on "
            "that column, too, a convolutional network for the encoder to imitate; 'embeddings': the encoder alone, "
            "on `teacher_targets`; 'masked_patches': a SSAMBA alone, on nothing but recordings; "
            "'distillation': captions, with `distill_from` for a teacher; "
            "'mohawk': on a transformer's MAC, what `mohawk_stage` says."
        },
    )
    teacher_width: int = field(
        default=32, metadata={"help": "Channels of the teacher's first block; its last has four times as many."}
    )
    imitate_teachers: bool = field(
        default=False,
        metadata={"help": "While it learns tags, the encoder also imitates the teachers of all earlier stages."},
    )
    teacher_targets: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Files of what a teacher from elsewhere hears in the recordings of `train_data`, and of their "
            "tags: see training_mac/objectives/teacher_targets.py."
        },
    )
    continue_tags: bool = field(
        default=False,
        metadata={
            "help": "Start a stage of embeddings with the scores of the tags that an earlier one left in the "
            "connector, not anew."
        },
    )
    distill_from: str | None = field(
        default=None,
        metadata={"help": "MAC folder or Hub id that a student with the same tokenizer and audio tokens imitates."},
    )
    distill_temperature: float = field(
        default=2.0, metadata={"help": "Temperature that divides the logits of teacher and student before they meet."}
    )
    distill_weight: float = field(
        default=0.5, metadata={"help": "Share of the imitation in the loss; the rest is the captions' cross-entropy."}
    )
    distill_hidden_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of imitating how alike the teacher's last layer finds the labelled tokens; 0: no."},
    )
    mohawk_stage: Literal["matrices", "hidden", "logits"] = field(
        default="matrices",
        metadata={
            "help": "What `objective: mohawk` compares with the transformer of `distill_from`: attention matrices, "
            "the blocks' outputs, or the logits."
        },
    )
    average_checkpoints: int = field(
        default=0,
        metadata={"help": "End a stage of an encoder alone with the mean of its last checkpoints, so many; 0: no."},
    )
    whiten: bool = field(
        default=False,
        metadata={"help": "Start the encoder's patch embedding from the principal components of the recordings."},
    )
    kept_patches: int = field(
        default=128, metadata={"help": "Patches of a window that enter the encoder while it learns alone."}
    )
    masked_patches: int = field(
        default=400,
        metadata={"help": "Patches of a full window that `objective: masked_patches` masks, of 512 in 10.24 s."},
    )
    keep_rate: float | None = field(
        default=None,
        metadata={"help": "Share of its patches that each pruning of the encoder keeps when the stage ends (TopK)."},
    )
    keep_rate_span: list[float] = field(
        default_factory=lambda: [0.5, 0.8],
        metadata={"help": "Shares of the stage between which the rate falls from 1 to `keep_rate`, as half a cosine."},
    )
    loss_on: Literal["answer", "all"] = field(
        default="answer", metadata={"help": "'answer': learn the answers only; 'all': the prompts too, as LTU."}
    )
    max_text_tokens: int | None = field(
        default=None,
        metadata={"help": "Cut prompt and answer to so many tokens in all, as LTU (108); audio does not count."},
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
    cache_encodings: str | None = field(
        default=None,
        metadata={
            "help": Help(
                "With `cached_epochs`: folder to keep encodings in, for other runs with the same encoder and audio.",
                "free",
            )
        },
    )
    encoding_mix: float = field(
        default=0.0,
        metadata={"help": "With `cached_epochs`: mix up to this share of another example's encoding into each."},
    )
    cross_fitted_tags: int = field(
        default=0,
        metadata={
            "help": "With `cached_epochs` and `teacher_targets`: part the recordings into so many, and learn captions "
            "from the tags of each as those of other parts tell them; 0: as the encoder tells them."
        },
    )
    certain_tags: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "With `cross_fitted_tags`: tags that the teacher does not hear, and what each is part of; they "
            "are learnt as the encoder tells them beside that."
        },
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
    lora_rank: int = field(
        default=8, metadata={"help": Help("Rank r of the LoRA matrices; the paper's: 8 and 256.", "lora")}
    )
    lora_alpha: float | None = field(
        default=None, metadata={"help": Help("LoRA's scale times r; 2 r if not given.", "lora")}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": Help("Dropout before the LoRA matrices.", "lora")})
    lora_targets: list[str] = field(
        default_factory=lambda: ["in_proj", "out_proj"],
        metadata={
            "help": Help("Layers of the language model that LoRA adapts; Mamba-2's projections by default.", "lora")
        },
    )
    lora_by_modality: bool = field(
        default=False,
        metadata={
            "help": Help(
                "One LoRA for audio tokens and one for text, in those of `lora_targets` of which audio has its own: "
                "see `modality_projections` of `model`.",
                "lora",
            )
        },
    )
    encoder_lora_targets: list[str] = field(
        default_factory=lambda: ["qkv", "proj"],
        metadata={"help": Help("Layers of the encoder that LoRA adapts.", "lora")},
    )

    # Validation and faults
    eval_metrics: list[str] = field(
        default_factory=lambda: ["bleu", "rouge_l", "cider_d"],
        metadata={"help": "Metrics of `evaluation_mac.score_captions`; meteor, spice and spider need Java."},
    )
    naming: str | None = field(
        default=None,
        metadata={
            "help": "Word lists by which validation counts captions that name their clip's `source`: 'esc50' or "
            "'everyday'."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a better `metric_for_best_model`."},
    )
    max_nan_steps: int = field(
        default=3,
        metadata={
            "help": Help(
                "Stop at so many steps in a row without a finite gradient; such steps change no weight.", "free"
            )
        },
    )

    # What is kept
    merge_adapter: bool = field(
        default=False,
        metadata={"help": Help("Write the LoRA matrices into the weights: a whole model, no adapter.", "run", "free")},
    )
    store_float16: bool = field(
        default=False,
        metadata={"help": Help("Write the final weights as float16; they load as float32.", "run", "free")},
    )
    stages: list[dict] = field(
        default_factory=list,
        metadata={"help": "Overrides of any field, one mapping a stage; stages run one after another."},
    )

    def __post_init__(self) -> None:
        self.base_model = shipped_model(self.base_model) if self.base_model else None
        self.distill_from = shipped_model(self.distill_from) if self.distill_from else None
        self.tokenizer = shipped_model(self.tokenizer) if self.tokenizer else None
        self.encoder_of = shipped_model(self.encoder_of) if self.encoder_of else None


def shipped_model(name: str) -> str:
    """Give where a model is: for the name of a shipped checkpoint its folder, else the folder or Hub id itself."""
    return name if Path(name).is_dir() else SHIPPED_MODELS.get(name, name)


@dataclass
class MacTrainingArguments(TrainingArguments):
    """transformers' TrainingArguments with the defaults that MAC's data and faults need."""

    output_dir: str | None = field(
        default="runs/mac",
        metadata={
            "help": Help("Folder of the run: the model at its end, stages and checkpoints below.", "run", "free")
        },
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


# transformers' own fields cannot bear marks, so the beginnings of their names say which are `free` and `run`.
FREE_BEGINNINGS = ("logging_", "report_to", "run_name", "project", "disable_tqdm", "log_level", "push_to_hub", "hub_",
                   "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory", "save_total_limit",
                   "resume_from_checkpoint", "trackio_", "ddp_timeout")  # fmt: skip
RUN_BEGINNINGS = ("push_to_hub", "hub_")


def marked(mark: str) -> list[str]:
    """List the names of MAC's own fields that bear a mark; `Recipe` explains the marks."""
    kinds = (Recipe, DataRecipe, MacTrainingArguments)
    return [
        entry.name
        for kind in kinds
        for entry in fields(kind)
        if mark in getattr(entry.metadata.get("help"), "marks", ())
    ]


def keeps_weights(name: str) -> bool:
    """Whether the field decides the weights, so that another value would give another model."""
    return name not in marked("free") and not name.startswith(FREE_BEGINNINGS)


def is_of_run(name: str) -> bool:
    """Whether a field says what a run does once, so that no stage can have its own."""
    return name in marked("run") or name.startswith(RUN_BEGINNINGS)
