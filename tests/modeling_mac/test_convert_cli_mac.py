import pytest
import torch
from safetensors import SafetensorError

from modeling_mac import MacForConditionalGeneration
from modeling_mac.convert_cli_mac import main


@pytest.fixture
def sources(eat_folder, mamba2_folder) -> list[str]:
    return ["--audio", str(eat_folder), "--language-model", str(mamba2_folder)]


def test_writes_a_folder_that_from_pretrained_loads(sources, tmp_path, capsys):
    output = tmp_path / "mac"
    main([*sources, "--output", str(output), "--connector-type", "time_major", "--dtype", "bfloat16"])
    model = MacForConditionalGeneration.from_pretrained(output)
    assert model.config.connector_type == "time_major" and model.dtype == torch.bfloat16
    assert model.generation_config.suppress_tokens == [50]
    assert "the connector is untrained" in capsys.readouterr().out
    assert not output.with_name("mac.partial").exists()


def test_a_seed_repeats_the_connector(sources, tmp_path):
    models = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        main([*sources, "--output", str(tmp_path / name), "--seed", str(seed)])
        models.append(MacForConditionalGeneration.from_pretrained(tmp_path / name).model.connector.linear_1.weight)
    assert torch.equal(models[0], models[1]) and not torch.equal(models[0], models[2])


def test_a_failure_leaves_nothing_and_says_why(sources, mamba2_folder, tmp_path, capsys):
    (mamba2_folder / "pytorch_model.bin").unlink()
    with pytest.raises(SystemExit, match="1"):
        main([*sources, "--output", str(tmp_path / "mac")])
    assert "mamba2 should hold model.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "mac").exists()


def test_a_full_disk_is_told_in_a_line(sources, tmp_path, monkeypatch, capsys):
    def full(self, folder):
        folder.mkdir(exist_ok=True)
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(MacForConditionalGeneration, "save_pretrained", full)
    with pytest.raises(SystemExit, match="1"):
        main([*sources, "--output", str(tmp_path / "mac")])
    assert capsys.readouterr().err.endswith("mac-convert: No space left on device\n")
    assert not list(tmp_path.glob("mac*.partial"))


def test_an_existing_output_is_not_touched(sources, eat_folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*sources, "--output", str(eat_folder)])
    assert "not an empty folder" in capsys.readouterr().err


def test_a_vocabulary_without_known_padding_needs_the_id(sources, mamba2, tmp_path, capsys):
    mamba2.save_pretrained(tmp_path / "hf")
    command = [*sources[:2], "--language-model", str(tmp_path / "hf"), "--output", str(tmp_path / "mac")]
    with pytest.raises(SystemExit, match="1"):
        main(command)
    assert "audio_token_id" in capsys.readouterr().err
    main([*command, "--audio-token-id", "63"])
    assert MacForConditionalGeneration.from_pretrained(tmp_path / "mac").config.audio_token_id == 63
