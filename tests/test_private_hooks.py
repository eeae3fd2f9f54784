"""
Parts of transformers and datasets that promise nothing to anybody, and that MAC builds on all the same.

Each stands here with the names of its parameters, so that an upgrade which changes one fails by its name, and not
somewhere in a training. A new private hook gets a line here and a why-comment where it is used.
"""

import inspect
from importlib import import_module
from typing import Any

import datasets
import pytest
from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Model


HOOKS = {
    # modeling_mac: sub-modules initialise themselves; clips are repeated for beams after prefill;
    # nothing is compiled unasked
    "transformers.PreTrainedModel._init_weights": "self module",
    "transformers.generation.GenerationMixin._supports_default_dynamic_cache": "",
    "transformers.generation.GenerationMixin._expand_inputs_for_generation":
        "self expand_size is_encoder_decoder input_ids model_kwargs",
    "transformers.generation.GenerationMixin._valid_auto_compile_criteria": "self model_kwargs generation_config",
    "transformers.generation.GenerationMixin._prefill":
        "self input_ids generation_config model_kwargs is_first_iteration",
    "transformers.integrations.accelerate.force_accelerate_hooks": "child_module_names",
    "transformers.modeling_utils.slice_logits_to_keep": "hidden_states logits_to_keep",
    # modeling_mac: the Mamba-2 backbone by subclassing, and the layout of its states
    "transformers.models.mamba2.modeling_mamba2.Mamba2Mixer.__init__":
        "self config layer_idx initialize_mixer_weights",
    "transformers.models.mamba2.modeling_mamba2.Mamba2Model.forward":
        "self input_ids inputs_embeds cache use_cache output_hidden_states return_dict attention_mask kwargs",
    "transformers.cache_utils.LinearAttentionLayer.lazy_initialization":
        "self conv_states recurrent_states state_idx conv_kernel_size",
    "transformers.cache_utils.LinearAttentionLayer.update_recurrent_state": "self recurrent_states state_idx kwargs",
    "transformers.cache_utils.LinearAttentionLayer.reorder_cache": "self beam_idx",
    # processing_mac: the pipeline's parameters, and generate's
    "transformers.Pipeline._sanitize_parameters": "self pipeline_parameters",
    "transformers.Pipeline._forward": "self input_tensors forward_parameters",
    "transformers.Pipeline._prepare_generate_kwargs": "self generate_kwargs overrides",
    # training_mac.loop: order, faults, speed and checkpoints of the Trainer
    "transformers.Trainer._get_train_sampler": "self train_dataset",
    "transformers.Trainer._run_epoch":
        "self model epoch train_dataloader steps_in_epoch num_update_steps_per_epoch trial ignore_keys_for_eval "
        "start_time resume_from_checkpoint epochs_trained steps_trained_in_current_epoch",
    "transformers.Trainer._get_grad_norm": "self model grad_norm",
    "transformers.Trainer._load_from_checkpoint": "self resume_from_checkpoint model",
    "transformers.Trainer._save_checkpoint": "self model trial",
    "transformers.Trainer.get_batch_samples": "self epoch_iterator num_batches device",
    "transformers.trainer_pt_utils.get_length_grouped_indices": "lengths batch_size mega_batch_mult generator",
    "transformers.trainer_utils.rotate_checkpoints":
        "output_dir save_total_limit best_model_checkpoint use_mtime checkpoint_prefix",
    # model_cards: which files a saved folder needs
    "transformers.dynamic_module_utils.get_relative_import_files": "module_file",
    # training_mac.data: the cache of features, and that of folders
    "datasets.fingerprint.Hasher.hash": "value",
    "datasets.distributed.split_dataset_by_node": "dataset rank world_size strategy",
}  # fmt: skip
ATTRIBUTES = ("torch._foreach_copy_", "datasets.config.HF_DATASETS_CACHE", "datasets.arrow_writer.ArrowWriter.write")


def find(name: str) -> Any:
    """What a dotted name stands for."""
    module, attributes = name, []
    while True:
        try:
            found = import_module(module)
            break
        except ImportError:
            module, _, attribute = module.rpartition(".")
            attributes.insert(0, attribute)
    for attribute in attributes:
        found = getattr(found, attribute)
    return found


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_as_it_was(name: str) -> None:
    assert " ".join(inspect.signature(find(name)).parameters) == HOOKS[name]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_there(name: str) -> None:
    find(name)


def test_a_dataset_has_a_fingerprint() -> None:
    """Which tells the audio of its rows from any other in the cache of features."""
    assert isinstance(datasets.Dataset.from_dict({"a": [1]})._fingerprint, str)


def test_a_block_of_mamba2_has_the_parts_that_are_replaced() -> None:
    config = Mamba2Config(hidden_size=8, num_hidden_layers=1, num_heads=2, head_dim=8, state_size=4, n_groups=1,
                          vocab_size=4)  # fmt: skip
    model = Mamba2Model(config)
    assert {"norm", "mixer"} <= set(dict(model.layers[0].named_children())) and hasattr(model, "norm_f")
