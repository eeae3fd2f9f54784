"""A folder of one's own loads by the task's name, since the package has registered the pipeline."""

from transformers import pipeline

from modeling_mac import MacConfig
from processing_mac import DEFAULT_MODEL, AudioCaptioningPipeline


def test_an_own_folder_needs_no_remote_code(tmp_path):
    captioner = pipeline("audio-captioning", model=DEFAULT_MODEL)
    assert type(captioner) is AudioCaptioningPipeline
    captioner.model.config.save_pretrained(tmp_path)
    saved = MacConfig.get_config_dict(tmp_path)[0]["custom_pipelines"]
    assert saved == MacConfig.get_config_dict(DEFAULT_MODEL)[0]["custom_pipelines"], "the folder keeps its own code"
