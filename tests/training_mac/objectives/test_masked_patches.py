"""SSAMBA learns from recordings alone: what is masked, that it learns, and that its tower goes on to a captioner."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file

from modeling_mac import EatConfig, MacForConditionalGeneration, SsambaConfig, SsambaModel
from modeling_mac.configuration_mac import WhisperTowerConfig
from modeling_mac.conversion_audio_mac import load_audio_tower
from training_mac.objectives.masked_patches import MaskedPatchPupil, heard_rows
from training_mac.recipe.file import load_stages
from training_mac.run.towers import check_tower


AUDIO = {"model_type": "mac_ssamba", "hidden_size": 32, "num_hidden_layers": 2, "window_frames": 512}
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1}
MODEL = {"audio_config": AUDIO, "text_config": TEXT}
PRETRAINS = {"objective": "masked_patches", "masked_patches": 100}


def make_pupil(masked_patches: int = 40) -> MaskedPatchPupil:
    torch.manual_seed(0)
    tower = SsambaModel(SsambaConfig(hidden_size=32, num_hidden_layers=2, window_frames=128))
    return MaskedPatchPupil(tower, masked_patches)


def padded(*frames: int) -> torch.Tensor:
    """Windows of 128 frames of noise, of which so many are sound."""
    windows = torch.randn(len(frames), 128, 128, generator=torch.Generator().manual_seed(0))
    for window, length in zip(windows, frames, strict=True):
        window[length:] = 0.467
    return windows


def test_padding_is_never_masked() -> None:
    pupil, windows = make_pupil(), padded(128, 79, 10)
    assert heard_rows(windows, 16).tolist() == [8, 4, 1]
    for _ in range(20):
        masks = pupil.draw_masks(torch.tensor([8, 4]))
        assert masks.shape == (2, 2, 20)  # 40 of 64, so 20 of the shorter one's 32
        assert (masks[:, 1] % 8 < 4).all() and (masks[:, 0] < 64).all()
        assert all(len(set(mask.tolist())) == 20 for mask in masks.flatten(0, 1))
        assert not torch.equal(masks[0], masks[1])


def test_a_short_end_of_a_recording_is_left_out() -> None:
    pupil = make_pupil().eval()
    seen = {}
    pupil.network.register_forward_pre_hook(lambda module, inputs: seen.update(inputs=inputs))
    pupil(padded(128, 10, 64))
    features, first, second = seen["inputs"]
    assert len(features) == len(first) == len(second) == 2 and first.shape[1] == 20


def test_masks_follow_torchs_seed() -> None:
    pupil = make_pupil()
    torch.manual_seed(3)
    first = pupil.draw_masks(torch.tensor([8]))
    assert not torch.equal(first, pupil.draw_masks(torch.tensor([8])))
    torch.manual_seed(3)
    assert torch.equal(first, pupil.draw_masks(torch.tensor([8])))


def test_the_loss_is_that_of_the_network_with_two_masks() -> None:
    pupil, windows = make_pupil().eval(), padded(128, 128)
    torch.manual_seed(5)
    outputs = pupil(windows)
    torch.manual_seed(5)
    masks = pupil.draw_masks(torch.tensor([8, 8]))
    expected = pupil.network(windows, masks[0], masks[1])
    assert torch.equal(outputs["loss"], expected.loss)
    assert torch.equal(outputs["contrastive"], pupil.network(windows, masks[0]).contrastive)


def test_a_recipe_pretrains_a_tower_that_goes_on_to_captions(write_recipe, train, tmp_path) -> None:
    recipe = write_recipe(
        model=MODEL, max_steps=30, learning_rate=3e-3, save_strategy="steps", save_steps=15, store_float16=False,
        stages=[{**PRETRAINS, "average_checkpoints": 2}, {"objective": "captions", "max_steps": 2}],
    )  # fmt: skip
    folder = train(recipe)
    log = json.loads((folder / "stage-1" / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in log if "loss" in entry]
    assert {"contrastive", "reconstruction", "accuracy", "clips_per_second"} <= steps[0].keys()
    assert steps[0]["loss"] == pytest.approx(steps[0]["contrastive"] + 10 * steps[0]["reconstruction"], rel=1e-3)
    for name, share in {"loss": 1.0, "contrastive": 0.9}.items():  # half of the recordings are noise
        first, last = (sum(entry[name] for entry in part) / 5 for part in (steps[:5], steps[-5:]))
        assert last < share * first, name
    learnt = load_file(folder / "stage-1" / "result" / "model.safetensors")
    new = load_file(folder / "base" / "model.safetensors")
    of_tower = [name for name in new if name.startswith("model.audio_tower.")]
    assert all(not torch.equal(learnt[name], new[name]) for name in of_tower if "positions" not in name)
    assert all(torch.equal(learnt[name], new[name]) for name in learnt if name not in of_tower)
    model = MacForConditionalGeneration.from_pretrained(folder)
    assert model.config.audio_config.model_type == "mac_ssamba"
    # Another model starts with the tower, whether by the recipe or by `from_towers`.
    other = train(write_recipe(model=MODEL, encoder_of=str(folder), max_steps=1, encoder="frozen",
                               output_dir=str(tmp_path / "other")))  # fmt: skip
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(load_file(other / "model.safetensors")[name], weights[name]) for name in of_tower)
    config, tower = load_audio_tower(folder)
    assert config.model_type == "mac_ssamba" and len(tower) == len(of_tower)
    assert all(torch.equal(tower[name.removeprefix("model.audio_tower.")], weights[name]) for name in of_tower)


def test_recordings_need_no_captions(write_recipe, train, manifest, tmp_path) -> None:
    table = tmp_path / "sounds.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([["audio"], *([str(path)] for path in sorted(manifest.parent.glob("*.wav")))])
    data = {"path": str(table), "columns": {"caption": "audio"}}
    train(write_recipe(model=MODEL, train_data=data, eval_data=None, max_steps=1, **PRETRAINS))


def test_a_killed_pretraining_goes_on_with_the_same_masks(write_recipe, train, tmp_path) -> None:
    fields = {"model": MODEL, "save_strategy": "steps", "save_steps": 2, **PRETRAINS}
    straight = train(write_recipe(max_steps=4, output_dir=str(tmp_path / "straight"), **fields))
    recipe = write_recipe(max_steps=4, output_dir=str(tmp_path / "killed"), **fields)
    killed = train(recipe)
    for path in (killed / "stage-1" / "result", killed / "stage-1" / "checkpoint-4"):
        for file in path.rglob("*"):
            file.unlink()
    train(recipe)
    results = [load_file(folder / "stage-1" / "result" / "model.safetensors") for folder in (straight, killed)]
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


EAT = EatConfig(hidden_size=32, num_attention_heads=2)
SSAMBA, OVERLAPPING = SsambaConfig(hidden_size=32, window_frames=512), SsambaConfig(hidden_size=32, stride=10)


@pytest.mark.parametrize(
    ("fields", "tower", "message"),
    [
        (PRETRAINS, EAT, "`objective: masked_patches` is the pretraining of a 'mac_ssamba'; this tower is 'mac_eat'"),
        (PRETRAINS, OVERLAPPING, "patches that do not overlap: `stride` is 10, and `patch_size` 16"),
        ({**PRETRAINS, "masked_patches": 255}, SSAMBA, "`masked_patches` is 255; expected 1 to 254, of 256 patches"),
        ({"objective": "embeddings"}, SSAMBA, "`objective: embeddings` teaches .* 'mac_eat'; this tower is 'mac_ssam"),
        ({"objective": "tags", "whiten": True}, SSAMBA, "`whiten` is for the patches of a 'mac_eat'; .* 'mac_ssamba'"),
        ({"objective": "tags", "kept_patches": 8}, WhisperTowerConfig(), "`kept_patches` .*; this tower is 'mac_whi"),
        (
            {"objective": "tags", "imitate_teachers": True},
            WhisperTowerConfig(),
            "a teacher has a row every 16 frames, and this tower, 'mac_whisper', one every 2",
        ),
    ],
)
def test_what_does_not_fit_the_tower_is_refused(write_recipe, fields, tower, message) -> None:
    [stage] = load_stages([str(write_recipe(**fields))])
    with pytest.raises(ValueError, match=message):
        check_tower(stage, tower)


def test_a_run_refuses_it_before_it_trains(write_recipe, train, capsys) -> None:
    with pytest.raises(ValueError, match="Stage 2: `objective: masked_patches` is the pretraining of a 'mac_ssamba'"):
        train(write_recipe(stages=[{"objective": "tags", "kept_patches": 32}, PRETRAINS]))
    assert "loss" not in capsys.readouterr().out
