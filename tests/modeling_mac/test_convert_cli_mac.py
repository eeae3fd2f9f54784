import pytest
import torch
from safetensors import SafetensorError
from transformers import WhisperConfig, WhisperForConditionalGeneration

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


@pytest.fixture
def whisper_folder(tmp_path):
    """A tiny Whisper in transformers' form."""
    config = WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=48, vocab_size=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(tmp_path / "whisper")
    return tmp_path / "whisper"


def test_a_stack_has_the_size_that_is_asked_for(whisper_folder, mamba2_folder, tmp_path):
    towers = ["--audio", str(whisper_folder), "--language-model", str(mamba2_folder)]
    main([*towers, "--output", str(tmp_path / "mac"), "--connector-type", "stack", "--stack-size", "8"])
    config = MacForConditionalGeneration.from_pretrained(tmp_path / "mac").config
    assert config.audio_config.model_type == "mac_whisper" and config.stack_size == 8
    assert config.audio_tokens_per_window == 6


def test_stacks_that_cannot_be_are_told_in_a_line(whisper_folder, sources, mamba2_folder, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*sources, "--output", str(tmp_path / "mac"), "--stack-size", "8"])
    assert "--stack-size is for --connector-type stack, not for concat" in capsys.readouterr().err
    towers = ["--audio", str(whisper_folder), "--language-model", str(mamba2_folder)]
    for connector in (["--connector-type", "stack", "--stack-size", "7"], ["--connector-type", "stack",
                                                                          "--stack-size", "0"]):  # fmt: skip
        with pytest.raises(SystemExit, match="1"):
            main([*towers, "--output", str(tmp_path / "mac"), *connector])
        assert "Traceback" not in (told := capsys.readouterr().err) and "stack" in told
    assert not (tmp_path / "mac").exists()


def test_a_macs_tower_may_be_taken(sources, mamba2_folder, tmp_path):
    main([*sources, "--output", str(tmp_path / "first")])
    main(["--audio", str(tmp_path / "first"), "--language-model", str(mamba2_folder), "--output",
          str(tmp_path / "second")])  # fmt: skip
    towers = [MacForConditionalGeneration.from_pretrained(tmp_path / name).model.audio_tower.state_dict()
              for name in ("first", "second")]  # fmt: skip
    assert all(torch.equal(towers[0][name], towers[1][name]) for name in towers[0])
