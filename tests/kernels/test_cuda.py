"""The whole captioner on a CUDA device, with and without the compiled kernels: captions, training, graphs."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from modeling_mac import MacForConditionalGeneration
from processing_mac import DEFAULT_MODEL, load_captioner


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(params=["portable", "kernels"])
def path(request) -> str:
    """Both ways on a GPU: the portable scans, and the kernels where they are installed."""
    from modeling_mac import cuda_kernels_mac, modeling_mamba2_mac

    if request.param == "kernels":
        if cuda_kernels_mac.cuda_kernels() is None:
            pytest.skip("needs mamba-ssm and causal-conv1d")
    else:
        request.getfixturevalue("monkeypatch").setattr(modeling_mamba2_mac, "kernels_for", lambda tensor: None)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return request.param


def sounds() -> list[str]:
    return sorted(str(file) for file in EXAMPLES.iterdir() if file.suffix in (".wav", ".flac", ".ogg", ".opus"))


def captions(captioner, files: list[str], **options) -> list[str]:
    return [answer[0]["caption"] for answer in captioner(files, batch_size=4, **options)]


@pytest.mark.parametrize("options", [{}, {"num_beams": 4}], ids=str)
def test_captions_are_those_of_a_cpu(path, options):
    """The shipped checkpoint in float32, clips of several lengths in batches: padded on the left."""
    files = sounds()
    expected = captions(load_captioner(str(DEFAULT_MODEL), device="cpu", dtype=torch.float32), files, **options)
    actual = captions(load_captioner(str(DEFAULT_MODEL), device="cuda", dtype=torch.float32), files, **options)
    assert actual == expected and len(set(actual)) > 1


def test_bf16_captions_name_the_same(path):
    files = sounds()
    captioner = load_captioner(str(DEFAULT_MODEL), device="cuda", dtype=torch.bfloat16)
    assert captioner.model.dtype == torch.bfloat16
    expected = captions(load_captioner(str(DEFAULT_MODEL), device="cpu", dtype=torch.float32), files)
    same = sum(ours == theirs for ours, theirs in zip(captions(captioner, files), expected, strict=True))
    assert same >= 0.6 * len(files)


def tokens(model, batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(1, 200, (batch, length), generator=generator)
    ids[ids == model.config.audio_token_id] = 0  # a text without audio must not hold its placeholder
    return ids.to(model.device)


@pytest.mark.parametrize("bf16", [False, True])
def test_training_steps_by_the_trainer(path, model, tmp_path, bf16):
    """One batch again and again: its loss falls, on a GPU as on a CPU."""
    ids = tokens(model, 4, 40).cpu()
    rows = [{"input_ids": row, "labels": row} for row in ids]
    found = {}
    for place in ("cpu", "cuda"):
        arguments = TrainingArguments(
            output_dir=str(tmp_path / place), max_steps=8, per_device_train_batch_size=4, learning_rate=1e-3,
            use_cpu=place == "cpu", bf16=bf16 and place == "cuda", logging_steps=1, report_to=[], save_strategy="no",
            disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(copy.deepcopy(model), arguments, train_dataset=rows)
        trainer.train()
        found[place] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert trainer.model.device.type == place
    assert found["cuda"][-1] < 0.9 * found["cuda"][0]
    assert found["cuda"][:2] == pytest.approx(found["cpu"][:2], rel=0.05 if bf16 else 2e-3)


def prepared(model: MacForConditionalGeneration) -> tuple[MacForConditionalGeneration, torch.Tensor]:
    model = model.to("cuda").eval()
    return model, tokens(model, 2, 30)


@torch.no_grad()
def test_a_step_never_waits_for_the_gpu(path, model):
    """`.item()`, a shape that depends on data or a copy from the CPU would hold up every token."""
    model, ids = prepared(model)
    cache = model(input_ids=ids, use_cache=True).cache
    step = lambda: model(input_ids=ids[:, :1], cache=cache, use_cache=True)  # noqa: E731
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@torch.no_grad()
def test_a_step_in_a_cuda_graph(path, model):
    """Captured once and replayed: the outputs and the states of as many steps run one by one."""
    model, ids = prepared(model)
    cache = model(input_ids=ids, use_cache=True).cache
    alone = copy.deepcopy(cache)
    token = ids[:, :1].clone()
    step = lambda cache: model(input_ids=token, cache=cache, use_cache=True).logits  # noqa: E731
    spare = copy.deepcopy(cache)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(spare)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step(cache)
    for column in range(5):
        token.copy_(ids[:, column : column + 1])
        graph.replay()
        expected = step(alone)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-3)
    for ours, theirs in zip(cache.layers, alone.layers, strict=True):
        torch.testing.assert_close(ours.recurrent_states[0], theirs.recurrent_states[0], rtol=1e-4, atol=1e-3)
