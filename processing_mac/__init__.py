"""
MAC's processing, from files and text to tensors and from tokens back to text.

Importing the package registers its classes with transformers.
"""

from pathlib import Path

from transformers import AutoFeatureExtractor, AutoModelForMultimodalLM, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .feature_extraction_mac import MacFeatureExtractor
from .loading_mac import load_captioner
from .pipeline_mac import TASK, AudioCaptioningPipeline
from .processing_mac import MacProcessor


# The checkpoints that ship: in a wheel they lie in this folder, in a clone (and an editable install) beside it.
_HERE = Path(__file__).parent
_CARDS = _HERE if (_HERE / "mac-small").is_dir() else _HERE.parent / "model_cards"
SHIPPED_MODELS = {name: str(_CARDS / name) for name in ("mac-small", "mac-tiny")}
DEFAULT_MODEL = SHIPPED_MODELS["mac-small"]

# Registered by the model type and not by the config class, which is in `modeling_mac`: this package does not need it.
AutoFeatureExtractor.register("mac", MacFeatureExtractor)
AutoProcessor.register("mac", MacProcessor)
MacFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
MacProcessor.register_for_auto_class("AutoProcessor")

PIPELINE_REGISTRY.register_pipeline(
    TASK,
    pipeline_class=AudioCaptioningPipeline,
    pt_model=AutoModelForMultimodalLM,
    default={"model": (DEFAULT_MODEL, "main")},
    type="multimodal",
)

__all__ = [
    "DEFAULT_MODEL",
    "SHIPPED_MODELS",
    "AudioCaptioningPipeline",
    "MacFeatureExtractor",
    "MacProcessor",
    "load_captioner",
]
