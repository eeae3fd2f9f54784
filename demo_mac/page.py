"""The page: where its parts stand, and which button calls which answer. It needs gradio."""

import html
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from processing_mac import AudioCaptioningPipeline

from .limits import MAX_FILE_BYTES, MAX_SECONDS, MEGABYTE, UploadLimits
from .live import EVERY, MAX_LISTENERS
from .model_facts import ModelFacts
from .visits import Answers
from .words import BUSY, EMPTY, FAILED, REFUSED, SILENT, UNRANKED


HERE = Path(__file__).parent
# Fonts are of the reader's own system, so that the page fetches nothing from elsewhere. Text has a contrast of 4.5 and
# more with its ground.
THEME = gr.themes.Base(
    primary_hue="teal", neutral_hue="slate", radius_size="lg",
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"],
).set(
    body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400",
    block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_400",
    block_label_text_color="*neutral_600", block_label_text_color_dark="*neutral_300",
    body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950",
    button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700", button_primary_background_fill_hover_dark="*primary_800",
    button_primary_text_color="white", button_primary_text_color_dark="white", color_accent="*primary_700",
)  # fmt: skip
LABELS = """\
a dog is barking
thunder rolls across the sky
a clock is ticking
a siren wails up and down
a baby is crying
a woman is singing
music is playing
someone is walking"""
MAX_CHARACTERS = 500  # longest prompt
MAX_WAITING = 32  # requests in the queue; further ones are told that the page is busy
HOUR = 3600  # seconds for which recordings are kept
RULES = (
    f"Up to {MAX_SECONDS // 60} minutes and {MAX_FILE_BYTES / MEGABYTE:.0f} MB. Recordings are deleted within two "
    "hours. The model can be wrong."
)
LIVE_RULES = (
    f"Every {EVERY:g} seconds the model writes what it heard. The sound goes to the machine that serves this page, "
    "which does not keep it. Browsers lend a microphone to pages at https:// and on one's own machine."
)
MICROPHONE = """<button type="button" class="record">Listen</button>
<meter min="0" max="1" value="0" aria-label="Loudness of the microphone"></meter>"""
# Templates of gradio: JavaScript in which `value` is what an answer gives. A region stays while its text changes, so
# that programs that read the screen aloud tell of the change.
REGION = (
    '<div class="answer"><div role="{role}" aria-live="polite" aria-label="{name}">${{value || ""}}</div>{more}</div>'
)
COPY = """${(value || "").includes('class="said') ? '<button type="button" class="copy">Copy</button>' : ""}"""
CAPTION = REGION.format(role="status", name="Caption", more=COPY)
RANKING = REGION.format(role="status", name="Labels by likelihood", more="")
HEARD = REGION.format(role="log", name="What is heard", more="")
SOUND = """${value ? `<div class="sounding">
<audio controls preload="metadata" src="${value.sound.url}" aria-label="The recording as the model hears it"></audio>
${value.picture}</div>` : ""}"""


def build_page(captioner: AudioCaptioningPipeline, examples: list[str], facts: ModelFacts) -> gr.Blocks:
    """
    Build the page around a model that is loaded already.

    Args:
        captioner: Pipeline of the model.
        examples: Paths of sounds to offer; the page opens with what is heard in the last one.
        facts: Words about the model.
    """
    answers = Answers(captioner)
    with gr.Blocks(title="MAC: what does it hear?", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        gr.HTML(introduce(facts), elem_id="top")
        with gr.Tab("A recording"):
            add_recording_tab(answers, examples)
        with gr.Tab("Live"):
            add_live_tab(answers)
    return page


def introduce(facts: ModelFacts) -> str:
    """Write the head of the page."""
    knows = f"<p>{html.escape(facts.knows)}</p>" if facts.knows else ""
    name = f"<b>{html.escape(facts.name)}</b> <small>{html.escape(facts.size)}</small>"
    return f'<header><h1>What does it hear?</h1><p class="model">{name}</p>{knows}</header>'


def name_example(path: str) -> str:
    """Name an example after its file."""
    return Path(path).stem.replace("_", " ")


def add_recording_tab(answers: Answers, examples: list[str]) -> None:
    """Add what captions a recording and ranks labels for it."""
    processor = answers.captioner.processor
    said, drawn, ranked = EMPTY, None, UNRANKED
    if examples:  # so that the page shows at once what it does
        said, drawn = answers.describe(examples[-1], origin=f"For example: {name_example(examples[-1])}")
        ranked = answers.rank(examples[-1], "", LABELS)
    with gr.Row(elem_classes="halves"):
        with gr.Column(scale=2, min_width=300):
            sound = gr.Audio(
                sources=["upload", "microphone"], type="filepath", label="Sound", buttons=[], elem_id="sound",
                waveform_options={"show_recording_waveform": False},  # the browser's own player, for it is accessible
            )  # fmt: skip
            prompt = gr.Textbox(
                label="Prompt", placeholder=processor.default_prompt, max_length=MAX_CHARACTERS, elem_id="prompt",
                visible=processor.knows_prompts,
            )  # fmt: skip
            ask = gr.Button("Describe the sound", variant="primary", elem_id="describe")
            asked = [ask.click]
            if examples:
                names = [name_example(path) for path in examples]
                offered = gr.Examples(examples, sound, example_labels=names, label="Sounds to try", elem_id="examples")
                asked.append(offered.load_input_event.then)
            gr.HTML(f'<p class="rules">{RULES}</p>')
        with gr.Column(scale=3, min_width=300):
            caption = gr.HTML(said, html_template=CAPTION, elem_id="caption")
            picture = gr.HTML(drawn, html_template=SOUND, elem_id="picture")
    with gr.Row(elem_classes="halves"):
        with gr.Column(scale=2, min_width=300):
            labels = gr.Textbox(
                LABELS, lines=5, max_lines=8, label="Which of these is it?", elem_id="labels",
                info="One a line. Worded as captions, they are told apart far better than as bare names.",
            )  # fmt: skip
            rank = gr.Button("Rank the labels", elem_id="rank")
        with gr.Column(scale=3, min_width=300):
            ranking = gr.HTML(ranked, html_template=RANKING, elem_id="ranking")

    for event in asked:
        ask_model(event, answers.describe, [sound, prompt], [caption, picture], "describe")
    ask_model(rank.click, answers.rank, [sound, prompt, labels], [ranking], "rank")
    # The answers about an earlier sound must not stand beside this one.
    at_once = {"queue": False, "api_visibility": "private"}
    gr.on([sound.input, sound.clear], None, None, [caption, picture], js=f"() => [{EMPTY!r}, null]", **at_once)
    sound.change(None, None, ranking, js=f"() => {UNRANKED!r}", **at_once)


def ask_model(event: Any, answer: Any, inputs: list[Any], outputs: list[Any], name: str) -> None:
    """
    Let an event ask the model: the first output tells at once that it works, and then the answer or what went wrong.

    Args:
        event: Event of gradio, such as `button.click`.
        answer: Function from the values of `inputs` to those of `outputs`.
        inputs, outputs: Parts of the page; what the first output says is in words and is brought into view.
        name: Name of the answer for `gradio_client`.
    """
    others = [None] * (len(outputs) - 1)

    def say_at_once(text: str) -> str:
        values = f"[{text!r}{', null' * len(others)}]" if others else repr(text)
        return f"() => {{ bringIntoView('{outputs[0].elem_id}'); return {values}; }}"

    begun = event(None, None, outputs, js=say_at_once(BUSY), queue=False, api_visibility="private")
    done = begun.then(
        answer, inputs, outputs, concurrency_id="model", concurrency_limit=1, show_progress="minimal",
        show_progress_on=outputs[0], api_name=name,
    )  # fmt: skip
    done.success(None, None, None, js=f"() => bringIntoView('{outputs[0].elem_id}')", api_visibility="private")
    done.failure(None, None, outputs, js=say_at_once(FAILED), queue=False, api_visibility="private")


def add_live_tab(answers: Answers) -> None:
    """Add what listens to the visitor's microphone."""
    with gr.Row(elem_classes="halves"):
        with gr.Column(scale=2, min_width=300):
            script = (HERE / "microphone.js").read_text(encoding="utf-8")
            microphone = gr.HTML(MICROPHONE, js_on_load=script, elem_id="microphone")
            gr.HTML(f'<p class="rules">{LIVE_RULES}</p>')
        with gr.Column(scale=3, min_width=300):
            heard = gr.HTML(SILENT, html_template=HEARD, elem_id="heard")
    listener = gr.State(None, time_to_live=2 * HOUR)
    quietly = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": MAX_LISTENERS}
    answered = microphone.chunk(answers.listen, listener, [heard, listener], trigger_mode="multiple", **quietly)
    answered.then(None, heard, None, js="(text) => microphoneAnswered(text)", **quietly)
    answered.failure(None, None, heard, js=f"() => {{ microphoneStop(); return {FAILED!r}; }}", **quietly)
    microphone.end(answers.end, listener, [heard, listener], **quietly)
    microphone.refused(None, None, heard, js=f"() => {REFUSED!r}", **quietly)


def serve(page: gr.Blocks, host: str, port: int | None) -> str:
    """
    Serve the page in threads of its own until `page.close()` or the process ends, at the first free port for None.

    Returns:
        The address of the page.

    Raises:
        OSError: The port is taken.
    """
    page.queue(max_size=MAX_WAITING)
    _, address, _ = page.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, share=False, ssr_mode=False, pwa=False,
        run_history=False, footer_links=[], max_file_size=MAX_FILE_BYTES, css_paths=HERE / "page.css", theme=THEME,
        js=(HERE / "page.js").read_text(encoding="utf-8"), quiet=True,
        app_kwargs={"middleware": [Middleware(UploadLimits, folder=Path(get_upload_folder()))]},
    )  # fmt: skip
    return address
