"""Saves the run's outcome: a whole model, or an adapter on its base; both can caption and be pushed to the Hub."""

import json
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import PeftModel

from processing_mac import AudioCaptioningPipeline
from processing_mac.whole_files_mac import partial_name, write_files_into
from training_mac.data.tables import ClipTables
from training_mac.loop.adapters import ends_whole
from training_mac.loop.checkpoints import writing
from training_mac.recipe.file import Stage
from training_mac.run.check import WHOLE_MODEL
from training_mac.run.folder import Run


def save_model(run: Run, tables: ClipTables) -> set[str]:
    """
    Write the model of the last stage into the run's folder, each file under a temporary name first.

    Returns:
        The names of the files on the main process; an empty set on the others.
    """
    saved: set[str] = set()
    if run.is_main:
        stage = run.stages[-1]
        model, processor = run.load(after=len(run.stages))
        asked = [stage.data for stage in run.stages if stage.recipe.objective in WHOLE_MODEL]
        prompts = {prompt or processor.default_prompt for data in asked for prompt in tables.prompts(data)}
        processor.knows_prompts = processor.knows_prompts or len(prompts) > 1
        processor.default_prompt = stage.data.prompt or processor.default_prompt
        processor.trained_windows = trained_windows(run, stage) or processor.trained_windows
        if isinstance(model, PeftModel) and ends_whole(run.recipes):
            model = model.merge_and_unload()
        with writing(partial_name(run.folder / "files")), write_files_into(run.folder) as partial:
            if isinstance(model, PeftModel):
                model.save_pretrained(partial)
                processor.save_pretrained(partial)
                (partial / "README.md").unlink()  # peft's; the run's own card says more and may be there already
            else:
                save_whole_model(model, processor, partial, stage.recipe.store_float16)
            saved = {file.name for file in partial.iterdir()}
    PartialState().wait_for_everyone()
    return saved


def trained_windows(run: Run, stage: Stage) -> int | None:
    """Give the mean number of windows of the clips that a stage learnt to caption; None if its log does not say."""
    file = run.stage_folder(stage.number) / "trainer_state.json"
    if stage.recipe.objective not in WHOLE_MODEL or not file.is_file():
        return None
    log = json.loads(file.read_text(encoding="utf-8"))["log_history"]
    counts = [entry["windows_per_clip"] for entry in log if "windows_per_clip" in entry]
    return round(sum(counts) / len(counts)) if counts else None


def save_whole_model(model: Any, processor: Any, folder: Path, store_float16: bool) -> None:
    """Save model, processor and the pipeline's code; if asked in float16, with a mark to load as float32."""
    pipeline = AudioCaptioningPipeline(model, processor=processor, task="audio-captioning", device="cpu")
    if store_float16:
        model.half()
    pipeline.save_pretrained(folder)
    if store_float16:
        mark_float32(folder / "config.json")


def mark_float32(config_file: Path) -> None:
    """Have `from_pretrained` load the weights as float32, since float16 is several times slower on a CPU."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    for part in (config, config["audio_config"], config["text_config"]):
        part["dtype"] = "float32"
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
