"""The configurations: one for each kind of audio tower, and `MacConfig` for the whole of tower, connector and LM."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, WhisperConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_discrete_mac import DiscreteMamba2Config
from .connector_mac import CONNECTORS
from .mixing_blocks_mac import scan_config
from .modeling_mamba2_mac import AUDIO_PROJECTIONS


TASK, PIPELINES = "audio-captioning", "custom_pipelines"

# Fields of state-spaces/mamba2-130m, the smallest language model of the paper; its vocabulary is padded to 50288 rows.
MAMBA2_130M = {
    "hidden_size": 768,
    "num_hidden_layers": 24,
    "num_heads": 24,
    "n_groups": 1,
    "vocab_size": 50288,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}


@strict
class EatConfig(PreTrainedConfig):
    """
    The EAT encoder (arXiv 2401.03497): a ViT over 16x16 patches of a log-mel spectrogram. Defaults are EAT-base.

    Args:
        hidden_size: Width of the tokens (EAT-large: 1024).
        num_hidden_layers: Number of Transformer blocks (EAT-large: 24).
        num_attention_heads: Number of attention heads in a block (EAT-large: 16).
        intermediate_size: Inner width of the blocks' MLP (EAT-large: 4096).
        num_mel_bins: Number of mel bins of the input.
        patch_size: Side of a square patch, in frames and in mel bins.
        window_frames: Frames of one input window, of 10 ms each; the model also accepts other multiples of the patch.
        layer_norm_eps: Epsilon of every LayerNorm.
        drop_path_rate: Stochastic depth at the last block; it rises linearly from 0 at the first.
        initializer_range: Standard deviation of newly made weights.
        keep_rate: Share of the patches that each pruning keeps (TopK, arXiv 2504.01690); 1: no pruning.
        pruning_layers: Blocks, from 0, whose MLP sees the kept patches only; by default a quarter, half and three
            quarters of the depth.
        pruning_score: "cls": patches that CLS attends to are kept; "mean": those that all patches attend to. To
            compare with: "intensity" and "deviation" keep those with the highest mean, or standard deviation.
        pruned_tokens: "grid": dropped patches come out as they were when dropped, on a whole grid; "sequence": they
            do not come out, the kept ones in the order of time do.
        padding_columns: Columns of patches of padding that are encoded in inference after what is heard of a window
            that is not full; all if None, as EAT was made, and where patches are pruned.
        padding_cell: What a cell of padding is, normalised; the default is EAT's, (0 - mean) / scale.
    """

    model_type = "mac_eat"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    num_mel_bins: int = 128
    patch_size: int = 16
    window_frames: int = 1024
    layer_norm_eps: float = 1e-6
    drop_path_rate: float = 0.0
    initializer_range: float = 0.02
    keep_rate: float = 1.0
    pruning_layers: list[int] | None = None
    pruning_score: Literal["cls", "mean", "intensity", "deviation"] = "cls"
    pruned_tokens: Literal["grid", "sequence"] = "grid"
    padding_columns: int | None = None
    padding_cell: float = 4.268 / 9.138

    def validate_architecture(self) -> None:
        """Refuse sizes that do not divide, and prunings that cannot be; called by `@strict` after construction."""
        for size, divisor in (
            ("hidden_size", "num_attention_heads"),
            ("window_frames", "patch_size"),
            ("num_mel_bins", "patch_size"),
        ):
            if getattr(self, size) % getattr(self, divisor):
                raise ValueError(
                    f"`{size}` ({getattr(self, size)}) must be a multiple of `{divisor}` ({getattr(self, divisor)})."
                )
        if self.hidden_size % 4:  # a sine and a cosine for each of the two axes
            raise ValueError(f"`hidden_size` ({self.hidden_size}) must be a multiple of 4: positions are 2-D sin-cos.")
        if not 0 < self.keep_rate <= 1:
            raise ValueError(f"`keep_rate` is {self.keep_rate}; expected a share above 0, at most 1.")
        if (self.padding_columns or 0) < 0:
            raise ValueError(f"`padding_columns` is {self.padding_columns}; expected 0 or more, or None.")
        wrong = [layer for layer in self.pruned_layers if not 0 <= layer < self.num_hidden_layers]
        if wrong or len(set(self.pruned_layers)) != len(self.pruned_layers):
            raise ValueError(
                f"`pruning_layers` is {self.pruning_layers}; expected different blocks from 0 to "
                f"{self.num_hidden_layers - 1} (`num_hidden_layers` is {self.num_hidden_layers})."
            )

    @property
    def pruned_layers(self) -> list[int]:
        """Indices of the blocks that prune: `pruning_layers`, or their default, which is 3, 6 and 9 for EAT-base."""
        if self.pruning_layers is not None:
            return self.pruning_layers
        return sorted({self.num_hidden_layers * quarter // 4 for quarter in (1, 2, 3)})

    @property
    def num_tokens(self) -> int:
        """Patch tokens that come out for one window."""
        rows, columns = self.grid
        patches = rows * columns
        if self.pruned_tokens == "sequence":
            for _ in self.pruned_layers:
                patches = math.ceil(self.keep_rate * patches)
        return patches

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of one window along (time, frequency)."""
        return self.window_frames // self.patch_size, self.num_mel_bins // self.patch_size

    @property
    def front_end(self) -> dict[str, Any]:
        """What the feature extractor has to be told to feed this tower."""
        return {"feature_size": self.num_mel_bins, "window_frames": self.window_frames}


@strict
class WhisperTowerConfig(WhisperConfig):
    """
    The encoder of Whisper (arXiv 2212.04356), for speech. The defaults are those of Whisper-tiny. The fields of
    transformers' `WhisperConfig` that concern the decoder are not used.

    Args:
        max_source_positions: Number of tokens of a window, of 20 ms each; 1500 in every released model.
    """

    model_type = "mac_whisper"

    is_encoder_decoder: bool = False
    use_cache: bool = False

    @property
    def window_frames(self) -> int:
        """Frames of one window, of 10 ms each; the encoder's second convolution has a stride of two frames."""
        return 2 * self.max_source_positions

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens of one window along (time, frequency)."""
        return self.max_source_positions, 1

    @property
    def num_tokens(self) -> int:
        """Tokens that come out for one window."""
        return self.max_source_positions

    @property
    def front_end(self) -> dict[str, Any]:
        """What the feature extractor has to be told to feed this tower: Whisper's own log-mel."""
        return {
            "feature_size": self.num_mel_bins,
            "window_frames": self.window_frames,
            "front_end": "whisper",
            "padding_value": -10 * math.log(10),  # silence: the front end's floor of 1e-10, as a natural logarithm
            "mean": -4.0,  # Whisper's normalisation of powers of ten, (x + 4) / 4
            "scale": 4.0,
        }


POOLINGS = ("mean", "cls")


@strict
class SsambaConfig(PreTrainedConfig):
    """
    The SSAMBA encoder (arXiv 2405.11831): bidirectional Mamba-1 over patches of a log-mel spectrogram. The defaults
    are those of the pretrained base model.

    Args:
        hidden_size: Width of the tokens (tiny: 192, small: 384).
        num_hidden_layers: Number of Mamba layers; it must be even where they stand in pairs.
        paired_layers: Whether a layer and the next one read the same tokens, forwards and backwards, and their outputs
            are added, as in pretraining; otherwise each layer reads the last one's output, as in upstream's SUPERB.
        state_size: Number of state entries for a channel.
        conv_kernel: Number of taps of the short convolution.
        expand: Number of channels of a mixer, in multiples of `hidden_size`.
        num_mel_bins: Number of mel bins of the input.
        patch_size: Side of a square patch, in frames and in mel bins.
        stride: Distance between patches, in frames and in mel bins: 16 in pretraining, 10 in fine-tuning.
        window_frames: Frames of one input window, of 10 ms each, for which the positions are stored.
        layer_norm_eps: Epsilon of every LayerNorm.
        drop_path_rate: Probability of stochastic depth before the final norm; it rises from 0 at the second layer.
        pooling: Token that a classifier's head reads: the `mean` of the patches' tokens, or `cls`.
        initializer_range: Standard deviation of new positions and of the new summary token.
    """

    model_type = "mac_ssamba"

    hidden_size: int = 768
    num_hidden_layers: int = 24
    paired_layers: bool = True
    state_size: int = 16
    conv_kernel: int = 4
    expand: int = 2
    num_mel_bins: int = 128
    patch_size: int = 16
    stride: int = 16
    window_frames: int = 1024
    layer_norm_eps: float = 1e-5
    drop_path_rate: float = 0.0
    pooling: str = "mean"
    initializer_range: float = 0.02

    def validate_architecture(self) -> None:
        """Refuse sizes that cannot be; called by `@strict` after construction."""
        if self.paired_layers and self.num_hidden_layers % 2:
            raise ValueError(f"`num_hidden_layers` ({self.num_hidden_layers}) must be even: `paired_layers` is true.")
        if self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` is {self.pooling!r}; expected one of {POOLINGS}.")
        if not 0 < self.stride <= self.patch_size <= min(self.window_frames, self.num_mel_bins):
            raise ValueError(
                f"`stride` ({self.stride}) must lie in 1..`patch_size` ({self.patch_size}), and a patch inside "
                f"`window_frames` ({self.window_frames}) and `num_mel_bins` ({self.num_mel_bins})."
            )

    @property
    def time_step_rank(self) -> int:
        """Inner width of the step sizes' projection, a sixteenth of `hidden_size`, as the Mamba paper has it."""
        return -(-self.hidden_size // 16)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of one window along (time, frequency)."""
        times, frequencies = (
            (size - self.patch_size) // self.stride + 1 for size in (self.window_frames, self.num_mel_bins)
        )
        return times, frequencies

    @property
    def num_tokens(self) -> int:
        """Patch tokens that come out for one window."""
        times, frequencies = self.grid
        return times * frequencies

    @property
    def front_end(self) -> dict[str, Any]:
        """What the feature extractor has to be told to feed this tower."""
        return {"feature_size": self.num_mel_bins, "window_frames": self.window_frames}


# The kinds of audio tower, by `audio_config.model_type`; `audio_tower_mac.py` has the models.
AUDIO_CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "mac_eat": EatConfig,
    "mac_ssamba": SsambaConfig,
    "mac_whisper": WhisperTowerConfig,
}


def audio_config_from_dict(fields: Mapping[str, Any]) -> PreTrainedConfig:
    """
    Build the configuration of a tower from its fields; without a `model_type`, as in old folders, it is an EAT's.

    Raises:
        ValueError: There is no tower of that `model_type`.
    """
    kind = fields.get("model_type", "mac_eat")
    if kind not in AUDIO_CONFIGS:
        raise ValueError(f"`audio_config.model_type` is {kind!r}; expected one of {tuple(AUDIO_CONFIGS)}.")
    return AUDIO_CONFIGS[kind](**fields)


@strict
class MacConfig(PreTrainedConfig):
    """
    MAC (arXiv 2509.15680): audio encoder, connector, Mamba-2 language model.

    Args:
        audio_config: Configuration of the encoder, of a kind in `AUDIO_CONFIGS`; that of EAT-base by default.
        text_config: Configuration of the language model, of a kind in `TESTED`; that of Mamba-2 130m by default.
        connector_type: Name of the connector, which makes a sequence of a window's grid of tokens: `concat` (the
            paper's best), `time_major`, `frequency_major`, `mean_pool`, `stack` (for long grids, as Whisper's), or
            `scan` and `gated_cnn`, which mix the tokens before they end as `concat` does.
        stack_size: Number of time steps that the connector `stack` makes one token of.
        connector_hidden_size: Inner width of the connector's MLP; the language model's width if None.
        connector_width: Width at which `scan` and `gated_cnn` mix; the language model's width if None.
        connector_layers: Number of their blocks.
        connector_scan: Orders in which `scan` reads the grid: `bidirectional` (time-major and back) or `cross`, which
            adds frequency-major and back.
        modality_projections: Projections of Mamba-2, of `in_proj` and `out_proj`, of which audio tokens have their own
            (Mixture-of-Mamba, arXiv 2501.16295).
        audio_token_id: Token id of `<|audio|>`, the placeholder that audio embeddings replace.
        initializer_range: Standard deviation of the connector's new weights.
        tie_word_embeddings: Whether the head shares the embedding's matrix, as in every released Mamba-2.
    """

    model_type = "mac"
    sub_configs_defaults = {
        "audio_config": EatConfig,
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="mamba2", init_kwargs=MAMBA2_130M),
    }
    # The Trainer joins the outputs of evaluation batches, which it cannot do with a cache.
    keys_to_ignore_at_inference = ["cache", "audio_hidden_states"]

    audio_config: Any = None
    text_config: Any = None
    connector_type: str = "concat"
    stack_size: int = 4
    connector_hidden_size: int | None = None
    connector_width: int | None = None
    connector_layers: int = 2
    connector_scan: Literal["bidirectional", "cross"] = "bidirectional"
    modality_projections: list[str] | None = None
    audio_token_id: int = 50277
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        # Done before transformers does it, which would take every tower for an EAT (see `sub_configs_defaults`); in a
        # saved folder's code the towers are not registered with `AutoConfig`, so that it cannot be asked instead.
        if isinstance(self.audio_config, Mapping):
            self.audio_config = audio_config_from_dict(self.audio_config)
        if isinstance(self.text_config, Mapping) and self.text_config.get("model_type") == "mac_discrete_mamba2":
            self.text_config = DiscreteMamba2Config(**self.text_config)
        super().__post_init__(**kwargs)

    @property
    def custom_pipelines(self) -> dict[str, Any]:
        """Pipelines whose code the folder brings; none where the installed package has registered them already."""
        is_installed = __name__ == "modeling_mac.configuration_mac"
        return {} if is_installed and TASK in PIPELINE_REGISTRY.supported_tasks else vars(self).get(PIPELINES, {})

    @custom_pipelines.setter
    def custom_pipelines(self, value: dict[str, Any]) -> None:
        self.__dict__[PIPELINES] = value  # there and not in another field, so that it is saved with the configuration

    def validate_architecture(self) -> None:
        """Refuse an unknown connector or an audio token outside the vocabulary; called by `@strict`."""
        if self.connector_type not in CONNECTORS:
            raise ValueError(f"`connector_type` is {self.connector_type!r}; expected one of {tuple(CONNECTORS)}.")
        self.check_mixing()
        self.check_modalities()
        self.check_grid()
        vocab_size = self.text_config.vocab_size
        if not 0 <= self.audio_token_id < vocab_size:
            raise ValueError(
                f"`audio_token_id` ({self.audio_token_id}) lies outside the vocabulary of {vocab_size} rows."
            )

    def check_mixing(self) -> None:
        """Refuse sizes of the connectors that mix tokens which cannot be."""
        if self.connector_layers < 1 or self.mixing_width < 1:
            raise ValueError(
                f"`connector_layers` is {self.connector_layers} and `connector_width` {self.mixing_width}; expected "
                "at least 1 each."
            )
        if self.connector_type == "scan":
            scan_config(self)

    def check_modalities(self) -> None:
        """Refuse projections by modality that the language model does not have."""
        wrong = [name for name in self.modality_projections or [] if name not in AUDIO_PROJECTIONS]
        if wrong or (self.modality_projections and self.text_config.model_type != "mamba2"):
            raise ValueError(
                f"`modality_projections` is {self.modality_projections} for a {self.text_config.model_type!r} "
                f"language model; expected some of {AUDIO_PROJECTIONS}, for a 'mamba2'."
            )

    @property
    def mixing_width(self) -> int:
        """Width at which a connector that mixes tokens does so."""
        return self.text_config.hidden_size if self.connector_width is None else self.connector_width

    def check_grid(self) -> None:
        """Refuse a connector that needs a whole grid where the tower prunes it, or whose steps do not divide it."""
        rows, columns = self.audio_config.grid
        if self.audio_config.num_tokens != rows * columns and self.connector_type != "time_major":
            raise ValueError(
                f"`connector_type` {self.connector_type!r} needs the whole grid of {rows} x {columns} tokens, but "
                f"`audio_config` prunes it to {self.audio_config.num_tokens}: choose the connector 'time_major', or "
                "`pruned_tokens` 'grid'."
            )
        step = CONNECTORS[self.connector_type].time_steps(self)
        if step < 1 or rows % step:
            raise ValueError(
                f"`connector_type` {self.connector_type!r} makes one token of {step} time steps, but the grid of "
                f"`audio_config` ({self.audio_config.model_type!r}) has {rows}, no multiple of it."
            )

    @property
    def audio_tokens_per_run(self) -> int:
        """Number of `<|audio|>` tokens of a window that follow each other without a separator."""
        return CONNECTORS[self.connector_type].layout(self).tokens

    @property
    def audio_tokens_per_window(self) -> int:
        """Number of `<|audio|>` tokens that stand for one window; separators are text and are not counted."""
        layout = CONNECTORS[self.connector_type].layout(self)
        return layout.runs * layout.tokens


__all__ = ["EatConfig", "MacConfig", "SsambaConfig", "WhisperTowerConfig"]
