r"""
The command `mac-convert`, which joins a pretrained audio tower and a pretrained language model to a MAC in a folder.

    mac-convert --audio worstchan/EAT-base_epoch30_pretrain --language-model state-spaces/mamba2-130m --output mac-130m
    mac-convert --audio openai/whisper-base --language-model state-spaces/mamba2-130m --output mac-speech \
        --connector-type stack --stack-size 8
"""

import argparse
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import set_seed

# This command stands above both packages. No other file of this one may take a helper of `processing_mac`.
from processing_mac.whole_files_mac import write_folder_whole

from .connector_mac import CONNECTORS
from .modeling_mac import MacForConditionalGeneration


def main(arguments: list[str] | None = None) -> None:
    """Convert and save; if a tower cannot be loaded whole, exit with 1 and a message and leave no output behind."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    output = options.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        parser.error(f"--output {output} exists already and is not an empty folder; nothing was written.")
    if options.stack_size is not None and options.connector_type != "stack":
        parser.error(f"--stack-size is for --connector-type stack, not for {options.connector_type}.")
    config = {"connector_type": options.connector_type}
    if options.stack_size is not None:
        config["stack_size"] = options.stack_size
    if options.audio_token_id is not None:
        config["audio_token_id"] = options.audio_token_id
    set_seed(options.seed)
    try:
        model = MacForConditionalGeneration.from_towers(
            options.audio, options.language_model, dtype=getattr(torch, options.dtype), **config
        )
        if options.int8:
            model.to_int8()
        with write_folder_whole(output) as partial:
            model.save_pretrained(partial)
    except (OSError, ValueError, SafetensorError) as error:  # safetensors raises its own error when the disk is full
        parser.exit(1, f"mac-convert: {error}\n")
    except StrictDataclassError as error:  # the connector does not fit the tower; the cause names both
        parser.exit(1, f"mac-convert: {error.__cause__ or error}\n")
    print(f"{output}: {model.num_parameters():,} parameters; the connector is untrained.")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="mac-convert",
        description="Join a pretrained audio tower and a pretrained language model into a MAC model with a "
        "new, untrained connector. A tower is a local file, a folder or a Hugging Face Hub id.",
    )
    parser.add_argument(
        "--audio",
        required=True,
        metavar="TOWER",
        help="told by its weights: EAT (fairseq's .pt or the released safetensors), SSAMBA (the authors' .pth), "
        "Whisper (its encoder is taken), or a folder of ours, of a tower or of a whole MAC",
    )
    parser.add_argument(
        "--language-model",
        required=True,
        metavar="LM",
        help="Mamba-2 (state-spaces or transformers form) or another causal language model of transformers",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write; new or empty")
    parser.add_argument(
        "--connector-type",
        choices=list(CONNECTORS),
        default="concat",
        help="how audio tokens reach the language model (default: concat; for Whisper's long rows: stack)",
    )
    parser.add_argument(
        "--stack-size", type=int, metavar="K", help="time steps that the connector `stack` makes one token of (4)"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the saved weights (default: float32)"
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="round the saved weights to 8 bits: a quarter of the size, not to be trained",
    )
    parser.add_argument(
        "--audio-token-id",
        type=int,
        metavar="ID",
        help="vocabulary row for <|audio|>; needed only where it is not the GPT-NeoX vocabulary (there: 50277)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the new connector's weights (default: 0)")
    return parser


if __name__ == "__main__":
    main()
