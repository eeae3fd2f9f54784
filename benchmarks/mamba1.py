"""
Mamba-1 on our scan against transformers' own mixer, in turn in one process: prefill, a step, a training pass.

    python benchmarks/mamba1.py --threads 1

Random weights in the shape of state-spaces/mamba-130m, the same in both; "floor" is the matrix products alone. Writes
`benchmarks/results/mamba1-cpu.json`.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from speed import RESULTS, median_seconds, provenance, write
from transformers import MambaConfig, MambaModel
from transformers.modeling_utils import PreTrainedModel

from modeling_mac.modeling_mamba_mac import MambaMacModel


def build(layers: int) -> dict[str, PreTrainedModel]:
    """Ours and the stock model, with the same weights."""
    config = MambaConfig(vocab_size=50280, hidden_size=768, num_hidden_layers=layers)
    torch.manual_seed(0)
    stock = MambaModel(config)
    ours = MambaMacModel(config)
    ours.load_state_dict(stock.state_dict())
    return {"ours": ours, "stock": stock}


def prefill(model: PreTrainedModel, tokens: int) -> Callable[[], object]:
    ids = torch.randint(1, 50000, (1, tokens))

    @torch.inference_mode()
    def run() -> None:
        model.eval()(ids, use_cache=True)

    return run


def products(model: PreTrainedModel, tokens: int) -> Callable[[], object]:
    """The matrix products of every layer, and nothing else."""
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    inputs = [torch.randn(tokens, linear.in_features) for linear in linears]

    @torch.inference_mode()
    def run() -> None:
        for linear, tensor in zip(linears, inputs, strict=True):
            torch.nn.functional.linear(tensor, linear.weight)

    return run


def decode(model: PreTrainedModel) -> Callable[[], object]:
    with torch.inference_mode():
        cache = model.eval()(torch.randint(1, 50000, (1, 32)), use_cache=True).cache

    @torch.inference_mode()
    def run() -> None:
        model(torch.tensor([[7]]), cache=cache, use_cache=True)

    return run


def training_pass(model: PreTrainedModel) -> Callable[[], object]:
    ids = torch.randint(1, 50000, (4, 96))

    def run() -> None:
        model.zero_grad(set_to_none=True)
        model.train()(ids).last_hidden_state.float().square().mean().backward()

    return run


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--layers", type=int, default=24, help="of the 24; the ratios hardly depend on it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    models = build(options.layers)
    columns = {
        "prefill 96": partial(prefill, tokens=96),
        "prefill 540": partial(prefill, tokens=540),
        "a step": decode,
        "training 4 x 96": training_pass,
    }
    seconds = {}
    for name, make in columns.items():
        runs = {variant: make(model) for variant, model in models.items()}
        if name.startswith("prefill"):
            runs["floor"] = products(models["ours"], int(name.split()[1]))
        seconds[name] = median_seconds(runs, options.repeats, "cpu")
        ratio = seconds[name]["stock"] / seconds[name]["ours"]
        times = ", ".join(f"{variant} {1000 * value:.1f} ms" for variant, value in seconds[name].items())
        print(f"{name}: {times}; {ratio:.1f} times as fast as stock", flush=True)
    record = {"layers": options.layers, "seconds": seconds, "repeats": options.repeats, **provenance("cpu")}
    options.results.mkdir(parents=True, exist_ok=True)
    write(options.results / "mamba1-cpu.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
