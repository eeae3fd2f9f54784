"""An estimate of a training's carbon from its time, its hardware and the electricity's mix."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch


WORLD_GRID = 473.0  # g of CO2 equivalent per kWh: electricity of the world in 2024 (Ember, Global Electricity Review)
WATTS_PER_CORE = 15.0  # rated watts of a server CPU over its cores, with memory and the rest of the machine


@dataclass(frozen=True)
class Hardware:
    """
    The hardware of a training.

    Args:
        name: Name as it stands on the card.
        watts: Power in watts; None if it is not known.
        basis: Source of the number of watts.
        processes: Number of processes that shared the work.
    """

    name: str
    watts: float | None = None
    basis: str = "not known"
    processes: int = 1


def estimate_emissions(hours: float, watts: float, grams_per_kwh: float = WORLD_GRID, overhead: float = 1.0) -> float:
    """
    Estimate grams of CO2 equivalent: hours x watts x grid.

    Args:
        hours: Duration of the training in hours.
        watts: Mean power in watts of all the hardware in use.
        grams_per_kwh: Grams of CO2 equivalent for a kWh of the electricity; the world's mean by default.
        overhead: Power of the whole site divided by that of its computers (PUE).

    Returns:
        Grams of CO2 equivalent, as good as the arguments are.
    """
    return hours * watts / 1000 * overhead * grams_per_kwh


def hardware_in_use(device: torch.device, processes: int = 1) -> Hardware:
    """
    Describe the hardware that this training runs on.

    Args:
        device: Device of this process.
        processes: Number of processes on all machines; each is taken to have one GPU, or the CPU threads of this one.
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
    """Ask the driver how many watts a GPU may draw; None where it does not tell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, f"--id={index}", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    told = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout.strip()
    return float(told) if re.fullmatch(r"\d+(\.\d+)?", told) else None


def cpu_name() -> str:
    """Name the CPU as Linux does, else by the kind of processor."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()
