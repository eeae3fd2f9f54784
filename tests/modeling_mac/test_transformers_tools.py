"""What transformers' own tools meet in MAC: the Trainer's options, quantisers, caches, assistants, attention."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForMultimodalLM, Trainer, TrainingArguments
from transformers.utils.generic import find_labels

from modeling_mac import MacForConditionalGeneration


@pytest.fixture
def rows(make_inputs) -> list[dict[str, torch.Tensor]]:
    """Four clips of one window with labels on the last tokens."""
    inputs = make_inputs(1)
    row = {"input_ids": inputs["input_ids"][0], "labels": inputs["input_ids"][0].clone()}
    row["labels"][: len(row["labels"]) // 2] = -100
    return [row | {"input_features": inputs["input_features"][0] * scale} for scale in (1.0, 0.9, 0.8, 0.7)]


def arguments(folder, **options) -> TrainingArguments:
    return TrainingArguments(
        str(folder), report_to=[], use_cpu=True, disable_tqdm=True, per_device_train_batch_size=2, max_steps=2,
        logging_steps=1, **options,
    )  # fmt: skip


def test_a_plain_trainer_evaluates_and_keeps_the_best(make_mac, rows, tmp_path):
    """Two label names used to be found, of which a batch holds one: no eval_loss, and a KeyError at the end."""
    assert find_labels(MacForConditionalGeneration) == ["labels"]
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True}
    trainer = Trainer(make_mac(), arguments(tmp_path, **options), train_dataset=rows, eval_dataset=rows)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 2 and trainer.state.best_metric == min(losses)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_label_smoothing_shifts_the_labels(make_mac, rows, tmp_path, training):
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    model = make_mac().train(training)
    losses = []
    for smoothing in (0.0, 1e-6, 0.1):
        trainer = Trainer(model, arguments(tmp_path, label_smoothing_factor=smoothing))
        losses.append(trainer.compute_loss(model, dict(batch)).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    logits = model(**batch).logits if not training else model.eval()(**batch).logits
    usual = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(),
                                        label_smoothing=0.1)  # fmt: skip
    assert losses[2] == pytest.approx(usual.item(), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"neftune_noise_alpha": 5.0},
        {"include_num_input_tokens_seen": "non_padding"},
        {"average_tokens_across_devices": False},
        {"gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
        {"train_sampling_strategy": "group_by_length"},
        {"auto_find_batch_size": True},
        {"torch_compile_backend": "aot_eager"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_plain_trainer_takes_its_options(make_mac, rows, tmp_path, options):
    trainer = Trainer(make_mac(), arguments(tmp_path, save_strategy="no", **options), train_dataset=rows)
    losses = [entry["loss"] for entry in [trainer.train(), *trainer.state.log_history][1:] if "loss" in entry]
    assert all(1 < loss < 20 for loss in losses), "about ln 64, whatever the option"
    if "include_num_input_tokens_seen" in options:
        assert trainer.state.num_input_tokens_seen == 4 * len(rows[0]["input_ids"])


@pytest.mark.parametrize("options", [{}, {"prediction_loss_only": True}, {"eval_do_concat_batches": False},
                                     {"batch_eval_metrics": True},
                                     {"include_for_metrics": ["inputs", "loss"]}],
                         ids=lambda options: next(iter(options), "plain"))  # fmt: skip
def test_every_way_of_evaluating_gives_the_same_loss(make_mac, rows, tmp_path, options):
    seen = []

    def metrics(prediction, compute_result=True):
        seen.append(prediction)
        return {"seen": len(seen)}

    trainer = Trainer(make_mac(), arguments(tmp_path, per_device_eval_batch_size=2, **options), eval_dataset=rows,
                      compute_metrics=metrics)  # fmt: skip
    expected = trainer.compute_loss(trainer.model.eval(), {k: torch.stack([r[k] for r in rows]) for k in rows[0]})
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), rel=1e-4)
    if "prediction_loss_only" not in options:
        assert seen[0].predictions[0].shape[-1] == 64


@pytest.mark.parametrize("model_type", ["mamba2", "gpt_neox"])
def test_quantisers_see_every_projection(make_mac, model_type):
    """bitsandbytes, fp8, gguf and `quantize_dynamic` convert layers of exactly this type."""
    model = make_mac(model_type)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert layers and all(type(layer) is nn.Linear for layer in layers)


@torch.no_grad()
def test_dynamic_quantisation_reaches_the_language_model(make_mac, make_inputs):
    model, inputs = make_mac(), make_inputs(1)
    before = model(**inputs).logits
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    mixer = quantised.model.language_model.layers[0].mixer
    assert "quantized" in type(mixer.in_proj).__module__ and "quantized" in type(mixer.out_proj).__module__
    after = quantised(**inputs).logits
    assert not torch.equal(after, before)
    assert nn.functional.cosine_similarity(after.flatten(), before.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_attention_may_be_named(make_mac, tmp_path, implementation):
    make_mac().save_pretrained(tmp_path)
    model = AutoModelForMultimodalLM.from_pretrained(tmp_path, attn_implementation=implementation)
    assert model.model.audio_tower.config._attn_implementation == implementation


def test_the_state_is_that_of_the_language_model(make_mac):
    assert make_mac()._is_stateful and not make_mac("gpt_neox")._is_stateful


def test_assistants_and_caches_of_a_stateless_model(make_mac, make_inputs):
    model, inputs = make_mac("gpt_neox"), make_inputs(1)
    options = {"max_new_tokens": 8, "do_sample": False}
    expected = model.generate(**inputs, **options)
    assert torch.equal(model.generate(**inputs, **options, prompt_lookup_num_tokens=2), expected)
    assert torch.equal(model.generate(**inputs, **options, cache_implementation="static"), expected)


@torch.no_grad()
def test_a_resized_head_survives_post_init(make_mac, make_inputs):
    model, inputs = make_mac(tie_word_embeddings=False), make_inputs(1)
    model.resize_token_embeddings(70)
    before = model(**inputs).logits
    model.post_init()
    torch.testing.assert_close(model(**inputs).logits, before)


@pytest.mark.parametrize("model_type", ["mamba2", "gpt_neox"])
@torch.no_grad()
def test_torch_export_leaves_batch_and_length_open(make_mac, make_inputs, model_type):
    model = make_mac(model_type)
    model.config.text_config.use_cache = False
    batch, length = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    shapes = {"input_ids": {0: batch, 1: length}, "attention_mask": {0: batch, 1: length}}
    shapes |= {"input_features": {0: batch}, "audio_num_windows": {0: batch}}
    program = torch.export.export(model, (), make_inputs(1, 1, 1), dynamic_shapes=shapes)
    for other in (make_inputs(1, 1, prompt=tuple(range(5, 20))), make_inputs(2, 1, 3, 1)):
        torch.testing.assert_close(program.module()(**other).logits, model(**other).logits)
