"""Audio and text become model inputs and labels; generated tokens become a caption."""

import pytest
import soundfile
import torch
from transformers import AutoProcessor, PreTrainedTokenizerFast

from processing_mac import MacFeatureExtractor, MacProcessor


# (<|audio|> a run, runs) of one window
LAYOUTS = {"concat": (64, 1), "time_major": (8, 64), "frequency_major": (64, 8), "mean_pool": (32, 1)}


@pytest.fixture
def neox(published) -> PreTrainedTokenizerFast:
    """The tokenizer of the released Mamba-2 models; as with them, padding is the end token."""
    file, end = published("tokenizer") / "20B_tokenizer.json", "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=end, pad_token=end, padding_side="left")


@pytest.fixture
def neox_processor(neox, make_config, make_processor):
    """Makes a processor on that tokenizer for a connector."""
    neox.add_special_tokens({"additional_special_tokens": ["<|audio|>"]})
    return lambda connector: make_processor(make_config(connector_type=connector), tokenizer=neox)


@pytest.mark.parametrize("connector", LAYOUTS)
@pytest.mark.parametrize("windows", [1, 3])
def test_audio_comes_first_in_runs_with_separators(connector, windows, make_config, make_processor, sound):
    run, runs = LAYOUTS[connector]
    processor = make_processor(make_config(connector_type=connector))
    ids = processor(sound(10.24 * windows), text="What is it?", sampling_rate=16_000)["input_ids"][0].tolist()
    separator = processor.tokenizer.encode("&&") if runs > 1 else []
    audio = [processor.audio_token_id] * run
    for _ in range(runs * windows - 1):
        audio += separator + [processor.audio_token_id] * run
    assert ids == audio + processor.tokenizer.encode("What is it?\n")


@pytest.mark.parametrize("connector", LAYOUTS)
def test_the_gpt_neox_tokenizer_has_one_token_for_the_separator(connector, neox_processor, sound):
    run, runs = LAYOUTS[connector]
    processor = neox_processor(connector)
    ids = processor(sound(25), sampling_rate=16_000)["input_ids"][0].tolist()
    assert processor.audio_token_id == 50277  # the first padding row of the released embeddings
    assert ids.count(50277) == 3 * run * runs
    assert ids.count(10494) == (3 * runs - 1 if runs > 1 else 0)
    assert processor.tokenizer.decode(ids).endswith("<|audio|>Describe the audio you hear.\n")


def test_a_tokenizer_without_the_audio_token_is_refused(neox):
    with pytest.raises(ValueError, match="add_special_tokens") as error:
        MacProcessor(MacFeatureExtractor(), neox)
    exec(str(error.value).split("`")[1], {"tokenizer": neox})  # the advice in the message is right
    assert MacProcessor(MacFeatureExtractor(), neox).audio_token_id == 50277


def test_labels_on_the_answer(processor, sound):
    inputs = processor([sound(1), sound(2)], answer=["a dog barks", "a bell rings twice"], sampling_rate=16_000)
    for row, answer in enumerate(["a dog barks", "a bell rings twice"]):
        labels, ids = inputs["labels"][row], inputs["input_ids"][row]
        expected = [*processor.tokenizer.encode(answer), processor.tokenizer.eos_token_id]
        assert labels[labels != -100].tolist() == expected
        assert torch.equal(ids[labels != -100], labels[labels != -100])
    assert inputs["attention_mask"][0, 0] == 1 and inputs["attention_mask"][0, -1] == 0  # padded on the right


def test_labels_on_all(processor, sound):
    inputs = processor(sound(1), answer="a dog barks", loss_on="all", sampling_rate=16_000)
    labels = inputs["labels"][0]
    text = processor.tokenizer.encode("Describe the audio you hear.\na dog barks<|endoftext|>")
    assert labels[labels != -100].tolist() == text
    assert processor.audio_token_id not in labels


@pytest.mark.parametrize("connector", ["time_major", "frequency_major"])
def test_separators_are_never_in_the_labels(connector, make_config, make_processor, sound):
    processor = make_processor(make_config(connector_type=connector))
    inputs = processor(sound(25), answer="rain", loss_on="all", sampling_rate=16_000)
    assert (inputs["labels"][0] != -100).sum() == len(
        processor.tokenizer.encode("Describe the audio you hear.\nrain")
    ) + 1


@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_the_end_is_learnt_though_it_is_the_padding_too(loss_on, tokenizer, make_config, make_processor, sound):
    tokenizer.pad_token = tokenizer.eos_token  # as in every released Mamba-2
    processor, end = make_processor(make_config(), tokenizer=tokenizer), tokenizer.eos_token_id
    answers = ["a dog", "a bell rings twice in the yard"]
    inputs = processor([sound(1)] * 2, answer=answers, loss_on=loss_on, sampling_rate=16_000)
    padding = inputs["attention_mask"] == 0
    assert (inputs["input_ids"][padding] == end).all() and padding[0].any() and not padding[1].any()
    assert (inputs["labels"][padding] == -100).all()
    for labels in inputs["labels"]:
        assert labels[labels != -100].tolist().count(end) == 1 and labels[labels != -100][-1] == end


def test_sides_of_the_padding(processor, sound):
    clips = [sound(1), sound(25)]
    short = processor(clips[0], sampling_rate=16_000)["input_ids"][0]
    for side, place in (("left", slice(-len(short), None)), ("right", slice(0, len(short)))):
        inputs = processor(clips, sampling_rate=16_000, padding_side=side)
        assert torch.equal(inputs["input_ids"][0, place], short)
        assert inputs["attention_mask"][0].sum() == len(short) and inputs["attention_mask"][1].all()
    assert processor(clips, sampling_rate=16_000)["attention_mask"][0, 0] == 0  # left, to generate


def test_features_are_the_feature_extractors(processor, sound):
    clips = [sound(1), sound(25)]
    inputs, features = processor(clips, sampling_rate=16_000), processor.feature_extractor(clips, sampling_rate=16_000)
    assert torch.equal(inputs["input_features"], features["input_features"])
    assert inputs["audio_num_windows"].tolist() == [1, 3]
    assert set(inputs) == set(processor.model_input_names)


def test_prompts(processor, sound):
    clips = [sound(1), sound(1)]
    texts = [
        processor.tokenizer.decode(ids, skip_special_tokens=True)
        for ids in processor(clips, text=["Who?", "<|audio|>Where?"], sampling_rate=16_000)["input_ids"]
    ]
    assert texts == ["Who?\n", "Where?"]  # text that holds the token is taken as it is
    same = processor(clips, text="Who?", sampling_rate=16_000)["input_ids"]
    assert torch.equal(same[0], same[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"text": "Who?"}, ValueError, "`audio` is missing"),
        ({"audio": 2, "text": ["Who?"]}, ValueError, "`text` has 1 rows for 2 clips"),
        ({"audio": 1, "text": 3}, ValueError, "`text` holds 3; expected a string"),
        ({"audio": 2, "answer": ["a", None]}, ValueError, "`answer` holds None; expected a string"),
        ({"audio": 1, "text": "<|audio|><|audio|>"}, ValueError, "text 0 holds .* 2 times; expected once"),
        ({"audio": 2, "answer": ["a", "b", "c"]}, ValueError, "`answer` has 3 rows for 2 clips"),
        ({"audio": 1, "answer": "a <|audio|>"}, ValueError, "answer 0 holds .* which stands for audio"),
        ({"audio": 1, "answer": "a", "loss_on": "prompt"}, ValueError, "'prompt'; expected 'answer' or 'all'"),
        ({"audio": 0}, ValueError, "list of audio is empty"),
        ({"audio": 1, "prompt": "Who?"}, TypeError, "unexpected arguments: prompt"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, message, processor, sound):
    if "audio" in arguments:
        arguments = {**arguments, "audio": [sound(1)] * arguments["audio"], "sampling_rate": 16_000}
    with pytest.raises(error, match=message):
        processor(**arguments)


def test_errors_of_audio_name_the_row(processor, sound):
    with pytest.raises(ValueError, match=r"audio 1: .* expected at least 400"):
        processor([sound(1), sound(0.01)], sampling_rate=16_000)


def test_a_prompt_cut_short_is_refused_by_the_model(model, processor, sound):
    inputs = processor(sound(1), sampling_rate=16_000)
    inputs["input_ids"], inputs["attention_mask"] = inputs["input_ids"][:, 4:], inputs["attention_mask"][:, 4:]
    with pytest.raises(ValueError, match="60 audio tokens, but 1 audio windows need 64"):
        model(**inputs)


def conversation(audio: object, answer: str | None = None) -> list[dict]:
    turns = [{"role": "user", "content": [{"type": "text", "text": "Who?"}, {"type": "audio", "audio": audio}]}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": answer}]


def test_the_chat_template_puts_audio_first(processor):
    assert processor.apply_chat_template(conversation("dog.wav")) == "<|audio|>Who?\n"
    both = processor.apply_chat_template([conversation("dog.wav"), conversation("cat.wav", "a cat")])
    assert both == ["<|audio|>Who?\n", "<|audio|>Who?\na cat<|endoftext|>"]


def test_the_chat_template_tokenizes(processor, sound, tmp_path):
    soundfile.write(tmp_path / "dog.wav", sound(12), 16_000, subtype="FLOAT")
    expected = processor(sound(12), text="Who?", sampling_rate=16_000)
    path = tmp_path / "dog.wav"
    row = {"array": sound(12), "sampling_rate": 16_000}
    for audio in (str(path), path, path.read_bytes(), row, sound(12), sound(12).tolist()):
        inputs = processor.apply_chat_template(conversation(audio), tokenize=True)
        assert set(inputs) == set(expected) and all(torch.equal(inputs[key], expected[key]) for key in expected)
    batch = processor.apply_chat_template([conversation(sound(1)), conversation(sound(12))], tokenize=True)
    assert batch["audio_num_windows"].tolist() == [1, 2] and len(batch["input_ids"]) == 2


def test_errors_of_a_conversation_name_the_file(processor):
    for name in ("gone", "gone.wav"):
        with pytest.raises(ValueError, match=f"^{name}: no such audio file"):
            processor.apply_chat_template(conversation(name), tokenize=True)
    with pytest.raises(ValueError, match="`text` has 2 rows for 1 clips"):
        silent = [{"role": "user", "content": [{"type": "text", "text": "Who?"}]}]
        processor.apply_chat_template([silent, conversation([0.0] * 400)], tokenize=True)


def test_training_text_is_the_chat_templates(processor, sound):
    learnt = processor(sound(1), text="Who?", answer="a dog", sampling_rate=16_000)["input_ids"]
    written = processor.apply_chat_template(conversation(sound(1), "a dog"), tokenize=True)["input_ids"]
    assert torch.equal(learnt, written)


def test_decode_gives_clean_captions(processor):
    tokenizer = processor.tokenizer
    ids = [*tokenizer.encode("  a dog \n barks<|endoftext|>"), tokenizer.pad_token_id, processor.audio_token_id]
    assert processor.decode(ids) == processor.decode(torch.tensor(ids)) == "a dog barks"
    assert processor.decode([ids, ids]) == processor.batch_decode(torch.tensor([ids, ids])) == ["a dog barks"] * 2


def test_save_and_load(make_config, make_processor, sound, tmp_path):
    template = "{% for message in messages %}<|audio|>Q: {{ message['content'][1]['text'] }} A: {% endfor %}"
    saved = make_processor(
        make_config(connector_type="time_major"), chat_template=template, separator="||", default_prompt="What?"
    )
    saved.save_pretrained(tmp_path)
    for loaded in (AutoProcessor.from_pretrained(tmp_path), MacProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, MacProcessor) and isinstance(loaded.feature_extractor, MacFeatureExtractor)
        assert (loaded.chat_template, loaded.separator, loaded.default_prompt) == (template, "||", "What?")
        assert (loaded.audio_tokens_per_window, loaded.audio_tokens_per_run) == (512, 8)
        assert loaded.tokenizer.padding_side == "left"
        inputs, expected = (
            loaded([sound(1), sound(12)], sampling_rate=16_000),
            saved([sound(1), sound(12)], sampling_rate=16_000),
        )
        assert all(torch.equal(inputs[key], expected[key]) for key in expected)
