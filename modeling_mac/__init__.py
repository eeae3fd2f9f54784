"""MAC's models, which map tensors to tensors. Importing the package registers them with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification, AutoModelForMultimodalLM

from .compiling_mac import compile_decoding
from .configuration_discrete_mac import DiscreteMamba2Config
from .configuration_mac import EatConfig, MacConfig, SsambaConfig, WhisperTowerConfig
from .int8_mac import Int8Config
from .modeling_discrete_mamba2_mac import DiscreteMamba2Model
from .modeling_eat import EatForAudioClassification, EatModel
from .modeling_mac import MacForConditionalGeneration, MacModel
from .modeling_ssamba import SsambaForAudioClassification, SsambaModel
from .modeling_whisper_mac import WhisperTowerModel
from .selective_scan_mac import selective_scan
from .ssd_mac import ssd_scan, ssd_step


AutoConfig.register("mac_eat", EatConfig)
AutoConfig.register("mac_ssamba", SsambaConfig)
AutoConfig.register("mac_whisper", WhisperTowerConfig)
AutoConfig.register("mac", MacConfig)
AutoConfig.register("mac_discrete_mamba2", DiscreteMamba2Config)
AutoModel.register(EatConfig, EatModel)
AutoModel.register(SsambaConfig, SsambaModel)
AutoModel.register(WhisperTowerConfig, WhisperTowerModel)
AutoModel.register(MacConfig, MacModel)
AutoModel.register(DiscreteMamba2Config, DiscreteMamba2Model)
AutoModelForAudioClassification.register(EatConfig, EatForAudioClassification)
AutoModelForAudioClassification.register(SsambaConfig, SsambaForAudioClassification)
AutoModelForMultimodalLM.register(MacConfig, MacForConditionalGeneration)

# A saved folder then holds a copy of the code: `trust_remote_code=True` loads it where this package is missing.
EatConfig.register_for_auto_class()
SsambaConfig.register_for_auto_class()
WhisperTowerConfig.register_for_auto_class()
MacConfig.register_for_auto_class()
EatModel.register_for_auto_class("AutoModel")
WhisperTowerModel.register_for_auto_class("AutoModel")
EatForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
SsambaModel.register_for_auto_class("AutoModel")
SsambaForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
MacModel.register_for_auto_class("AutoModel")
MacForConditionalGeneration.register_for_auto_class("AutoModelForMultimodalLM")

__all__ = [
    "DiscreteMamba2Config",
    "DiscreteMamba2Model",
    "EatConfig",
    "EatForAudioClassification",
    "EatModel",
    "Int8Config",
    "MacConfig",
    "MacForConditionalGeneration",
    "MacModel",
    "SsambaConfig",
    "SsambaForAudioClassification",
    "SsambaModel",
    "WhisperTowerConfig",
    "WhisperTowerModel",
    "compile_decoding",
    "selective_scan",
    "ssd_scan",
    "ssd_step",
]
