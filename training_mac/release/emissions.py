"""The carbon of a training: an estimate from its time, its hardware and the electricity's mix."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch


WORLD_GRID = 473.0  # g of CO2 equivalent per kWh: electricity of the world in 2024 (Ember, Global Electricity Review)
WATTS_PER_CORE = 15.0  # a server CPU's rated power over its cores, with memory and the rest of the machine


@dataclass(frozen=True)
class Hardware:
    """
    What computed.

    Args:
        name: As it goes into the card.
        watts: Its power; None if not known.
        basis: Where `watts` is from.
        processes: That shared the work.
    """

    name: str
    watts: float | None = None
    basis: str = "not known"
    processes: int = 1


def estimate_emissions(hours: float, watts: float, grams_per_kwh: float = WORLD_GRID, overhead: float = 1.0) -> float:
    """
    Grams of CO2 equivalent: hours x watts x grid.

    Args:
        hours: Of the training.
        watts: Mean power of all the hardware in use.
        grams_per_kwh: Of the electricity; the world's mean by default.
        overhead: Power of the whole site over that of its computers (PUE).

    Returns:
        An estimate, as good as its arguments.
    """
    return hours * watts / 1000 * overhead * grams_per_kwh


def hardware_in_use(device: torch.device, processes: int = 1) -> Hardware:
    """
    What this training runs on.

    Args:
        device: Of this process.
        processes: Of the training, over all machines; each is taken to have one GPU, or this process's CPU threads.
    """
    if device.type == "cuda":
        limit = gpu_power_limit(device.index or 0)
        name = f"{processes} x {torch.cuda.get_device_name(device)}"
        if not limit:
            return Hardware(name, processes=processes)
        return Hardware(name, processes * limit, "the power limit of the GPUs alone", processes)
    if device.type != "cpu":
        return Hardware(f"{processes} x {device.type}", processes=processes)
    cores = min(processes * torch.get_num_threads(), os.cpu_count() or 1)
    basis = f"{WATTS_PER_CORE:g} W assumed for each core in use"
    return Hardware(f"{cores} cores of {cpu_name()}", cores * WATTS_PER_CORE, basis, processes)


def gpu_power_limit(index: int) -> float | None:
    """Watts that the driver lets a GPU draw; None where it does not tell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, f"--id={index}", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    told = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout.strip()
    return float(told) if re.fullmatch(r"\d+(\.\d+)?", told) else None


def cpu_name() -> str:
    """As Linux tells it, else the kind of processor."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()
