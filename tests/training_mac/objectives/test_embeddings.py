"""What a teacher from elsewhere hears is read, lined up with the patches, and imitated."""

import csv
from pathlib import Path

import pytest
import torch

from modeling_mac import EatConfig, EatModel, MacConfig
from modeling_mac.connector_mac import CONNECTORS
from processing_mac.dataset_mac import Clip
from training_mac.objectives.embeddings import EmbeddingPupil, TeacherCollator
from training_mac.objectives.teacher_targets import TeacherTargets, read_targets


TAGS = ["rain", "siren", "water"]


def make_targets(*files: str) -> TeacherTargets:
    """Of each file of 3 s: an embedding per frame that numbers it, rain all the time, and a siren from 1.5 s on."""
    targets = TeacherTargets(TAGS)
    for file in files:
        embeddings = torch.arange(4.0).unsqueeze(1).expand(-1, 8)
        targets.add(file, embeddings, [(0.0, 1.5, {"rain", "water"}), (1.5, 3.0, {"rain", "water", "siren"})])
    return targets


def make_pupil(kept_patches: int = 16) -> EmbeddingPupil:
    torch.manual_seed(0)
    config = EatConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, window_frames=64
    )
    return EmbeddingPupil(EatModel(config), num_tags=3, kept_patches=kept_patches, width=8)


def test_targets_come_back_from_their_file(tmp_path: Path) -> None:
    make_targets("a.flac", "b.flac").save(tmp_path / "t.safetensors")
    targets = TeacherTargets.load(tmp_path / "t.safetensors")
    joined = TeacherTargets.join([targets, make_targets("c.flac")])
    assert joined.files == ["a.flac", "b.flac", "c.flac"] and joined.width == 8
    assert joined.stretches[1] == [(0.0, 1.5, [0, 2]), (1.5, 3.0, [0, 1, 2])]
    torch.testing.assert_close(joined.embeddings[2], targets.embeddings[0])


def test_bad_targets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file; expected the targets"):
        TeacherTargets.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="not the same tags"):
        TeacherTargets.join([make_targets("a.flac"), TeacherTargets(["dog"])])
    with pytest.raises(ValueError, match=r"a recording named b\.flac: give the folders other names"):
        TeacherTargets.join([make_targets("a.flac", "b.flac"), make_targets("b.flac")])
    make_targets("a.flac").save(tmp_path / "t.safetensors")
    clips = [Clip("x/a.flac", ("rain",)), Clip("x/b.flac", ("rain",))]
    with pytest.raises(ValueError, match="nothing of 1 recordings, the first is"):
        read_targets([str(tmp_path / "t.safetensors")], clips)


def test_rows_get_the_embedding_that_they_lie_in() -> None:
    collate = TeacherCollator(make_targets("a.flac"), grid=(32, 8), patch_size=16)
    example = {"input_features": torch.zeros(1, 512, 128), "audio": "x/a.flac", "spans": [(0, 298, None)]}
    batch = collate([example])
    # A row is 0.16 s: six of them begin in the first 0.96 s; after the fourth embedding comes nothing new.
    assert batch["heard"][0, :, 0].tolist() == [min(int((row + 0.5) * 0.16 / 0.96), 3) for row in range(32)]
    assert batch["heard_rows"].tolist() == [19]
    assert batch["spans"].tolist() == [[0, 0, 9], [0, 9, 18]]
    assert batch["labels"].tolist() == [[1, 0, 1], [1, 1, 1]]


def test_padding_is_neither_seen_nor_imitated() -> None:
    pupil = make_pupil(kept_patches=8).train()
    patches = pupil.draw_patches(torch.tensor([1, 4]))
    assert patches[0].sort().values.tolist() == list(range(8))
    pupil = make_pupil(kept_patches=32).eval()
    heard = torch.randn(1, 4, 8)
    row, tokens = pupil.draw_patches(torch.tensor([2])) // 8, torch.randn(1, 32, 32)
    before = pupil.distance(tokens, row, heard, torch.tensor([2]))
    heard[:, 2:] += 100
    torch.testing.assert_close(pupil.distance(tokens, row, heard, torch.tensor([2])), before)


def test_it_learns_many_tags_and_the_embedding() -> None:
    pupil = make_pupil().train()
    features = torch.randn(8, 64, 128) + torch.tensor([0.0] * 4 + [0.5] * 4)[:, None, None]
    labels = torch.tensor([[1.0, 0, 1]] * 4 + [[0.0, 1, 1]] * 4)
    heard = torch.tensor([-1.0] * 4 + [1.0] * 4)[:, None, None].expand(8, 4, 8) + 0.1 * torch.randn(8, 4, 8)
    spans = torch.tensor([[window, 0, 4] for window in range(8)])
    optimizer = torch.optim.AdamW(pupil.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        outputs = pupil(features, heard, torch.full((8,), 4), spans, labels)
        optimizer.zero_grad()
        outputs["loss"].backward()
        optimizer.step()
        losses.append(outputs["loss"].item())
    assert losses[-1] < 0.3 * losses[0]
    assert torch.equal(outputs["logits"][:, :2] > 0, labels.repeat(2, 1)[:, :2] > 0)


def test_a_tag_that_is_not_heard_says_nothing_to_the_language_model() -> None:
    pupil = make_pupil().eval()
    text_config = {"model_type": "mamba2", "vocab_size": 64, "hidden_size": 32, "num_heads": 8, "head_dim": 8}
    config = MacConfig(audio_config=pupil.audio_tower.config, text_config=text_config, audio_token_id=1)
    connector = CONNECTORS[config.connector_type](config)
    pupil.head.weight.data.zero_()  # all scores are the usual ones
    pupil.hand_over(connector)
    torch.testing.assert_close(connector(torch.randn(1, 32, 32)), torch.zeros(1, 4, 32))
    pupil.head.bias.data[1] += 4  # the second tag is heard
    pupil.hand_over(connector)
    heard = connector.linear_2.weight[:, 1] * torch.nn.functional.gelu(torch.tensor(4.0))
    torch.testing.assert_close(connector(torch.randn(1, 32, 32))[0], heard.expand(4, -1), rtol=1e-4, atol=1e-5)


def observed(pupil: EmbeddingPupil) -> list[dict[str, torch.Tensor]]:
    """Two batches of what a collator would give, the embedding a linear function of the encoder's tokens."""
    mapping, batches = torch.randn(32, 8), []
    for _ in range(2):
        features = torch.randn(16, 64, 128) + torch.randn(16, 1, 1)
        with torch.no_grad():
            tokens = pupil.audio_tower(features).last_hidden_state[:, 1:]
        heard = (tokens @ mapping).unflatten(1, (4, 8)).mean(2)  # (windows, rows, width)
        spans = torch.tensor([[window, 0, 4] for window in range(16)])
        batches.append(
            {"input_features": features, "heard": heard, "heard_rows": torch.full((16,), 4), "spans": spans}
        )
    return batches


def test_a_stage_that_goes_on_starts_with_the_scores_of_the_one_before() -> None:
    pupil, text_config = make_pupil().eval(), {"model_type": "mamba2", "vocab_size": 64, "hidden_size": 32}
    text_config |= {"num_heads": 8, "head_dim": 8}
    config = MacConfig(audio_config=pupil.audio_tower.config, text_config=text_config, audio_token_id=1)
    connector = CONNECTORS[config.connector_type](config)
    pupil.hand_over(connector)
    again = EmbeddingPupil(pupil.audio_tower, num_tags=3, kept_patches=32, width=8)
    batches = observed(pupil)
    again.take_up(connector, batches)
    inputs = batches[0] | {"labels": torch.zeros(16, 3)}
    torch.testing.assert_close(again.eval()(**inputs)["logits"], pupil(**inputs)["logits"], rtol=1e-3, atol=1e-3)
    assert again.norm.running_var is not None and not torch.allclose(again.norm.running_var, torch.ones(32), atol=0.1)
    guess = again.imitate(pupil.audio_tower(inputs["input_features"]).last_hidden_state[:, 1:])
    told = guess.unflatten(1, (4, 8)).mean(2).flatten()
    heard = inputs["heard"].flatten()
    assert torch.corrcoef(torch.stack([told, heard]))[0, 1] > 0.8

    with torch.no_grad():
        torch.nn.init.normal_(connector.linear_1.weight)  # as a head that weighs each token of a row in its own way
    with pytest.raises(ValueError, match="each in its own way"):
        again.take_up(connector, batches)

    other = MacConfig(audio_config=pupil.audio_tower.config, text_config=text_config, audio_token_id=1,
                      connector_type="mean_pool")  # fmt: skip
    with pytest.raises(ValueError, match="does not hold the scores of 3 tags"):
        again.take_up(CONNECTORS["mean_pool"](other), batches)


@pytest.fixture
def teacher_file(manifest: Path, tmp_path: Path) -> str:
    """The targets of the four recordings of the manifest."""
    with open(manifest, newline="") as file:
        make_targets(*[row["audio"] for row in csv.DictReader(file)]).save(tmp_path / "targets.safetensors")
    return str(tmp_path / "targets.safetensors")


def test_a_stage_of_a_recipe_imitates_it_and_hands_over(write_recipe, train, weights_after, teacher_file) -> None:
    stages = [
        {"objective": "embeddings", "teacher_targets": [teacher_file], "kept_patches": 32, "whiten": True},
        {"encoder": "frozen", "connector": "frozen"},
    ]
    folder = train(write_recipe(stages=stages))
    first, second = weights_after(folder, 1), weights_after(folder, 2)
    name = "model.connector.linear_1.bias"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name][:3], first[name][3:6])  # three tags' scores, and what is not handed over


def test_a_second_stage_goes_on_with_the_tags_of_the_first(write_recipe, train, weights_after, teacher_file) -> None:
    stage = {"objective": "embeddings", "teacher_targets": [teacher_file], "kept_patches": 32}
    still = stage | {"learning_rate": 1e-9, "continue_tags": True}
    name = "model.connector.linear_1.weight"
    folder = train(write_recipe(stages=[stage | {"learning_rate": 0.1}, still]))
    first, second = weights_after(folder, 1)[name][:3].flatten(), weights_after(folder, 2)[name][:3].flatten()
    assert torch.corrcoef(torch.stack([first, second]))[0, 1] > 0.95  # batches tell the tokens' spread a little anew


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"objective": "embeddings"}, "`teacher_targets` is missing"),
        ({"objective": "tags", "teacher_targets": ["t.safetensors"]}, "not for 'tags'"),
        (
            {"objective": "tags", "continue_tags": True},
            "`continue_tags` is for `objective: embeddings`, not for 'tags'",
        ),
        ({"objective": "tags", "encoder": "frozen"}, "`encoder: frozen`: nothing else learns by `objective: tags`"),
        (
            {"objective": "embeddings", "teacher_targets": ["t.safetensors"], "tempo": 0.1},
            "`tempo`: the teacher heard",
        ),
        ({"objective": "embeddings", "teacher_targets": ["t.safetensors"], "max_windows": 2}, "say `max_windows: 1`"),
    ],
)
def test_what_cannot_be_imitated_is_refused(write_recipe, train, fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        train(write_recipe(**fields))


def test_a_new_model_may_start_with_a_trained_encoder(write_recipe, train, weights_after, tmp_path) -> None:
    trained = weights_after(train(write_recipe()))
    settings = {"encoder_of": str(tmp_path / "run"), "seed": 5, "encoder": "frozen"}
    started = weights_after(train(write_recipe(output_dir=str(tmp_path / "second"), **settings)))
    encoder = [name for name in trained if name.startswith("model.audio_tower.")]
    assert encoder and all(torch.equal(trained[name], started[name]) for name in encoder)
    name = "model.connector.linear_1.weight"
    assert not torch.equal(trained[name], started[name])


def test_another_encoder_is_refused(write_recipe, train, tmp_path) -> None:
    train(write_recipe())
    second = write_recipe(output_dir=str(tmp_path / "second"), encoder_of=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="is not of the sizes in `audio_config`"):
        train(second, "--model.audio_config.intermediate_size", "96")
