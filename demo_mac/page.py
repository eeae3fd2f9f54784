"""The page: where its parts stand, and which button calls which answer. It needs gradio."""

import html
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import gradio as gr

from processing_mac import AudioCaptioningPipeline

from .answers import MAX_CHARACTERS, MAX_SECONDS, describe, rank_labels


# Fonts are of the reader's own system, so that the page fetches nothing from elsewhere. Small print is darker than the
# default's, which is hard to read.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    body_text_color_subdued="*neutral_500", block_info_text_color="*neutral_500"
)
LABELS = """\
a dog is barking
a cat is meowing
rain is falling
a clock is ticking
church bells are ringing
a siren is wailing
an engine is running
someone is walking"""
MAX_WAITING = 32  # requests in the queue; further ones are told that the page is busy
HOUR = 3600  # seconds for which recordings are kept
INTRODUCTION = f"""\
# What does it hear?
An audio captioner with a Mamba-2 language model listens to up to {MAX_SECONDS // 60} minutes of sound and says in a
sentence what it hears. It can be wrong. Recordings are deleted within two hours."""


def build_page(captioner: AudioCaptioningPipeline, examples: list[str]) -> gr.Blocks:
    """
    Build the page around a model that is loaded already.

    Args:
        captioner: Pipeline of the model.
        examples: Paths of sounds to offer; without any there is no box for them.
    """
    with gr.Blocks(title="MAC: what does it hear?", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                sound = gr.Audio(
                    sources=["upload", "microphone"], type="filepath", label="Sound", buttons=[], elem_id="sound"
                )
                if examples:
                    gr.Examples(examples, sound, label="Sounds to try")
                prompt = gr.Textbox(
                    label="Prompt", placeholder=captioner.processor.default_prompt, max_length=MAX_CHARACTERS,
                    info="Left empty, it asks what the model was trained with. mac-small, the model that ships, "
                    "knows that one prompt; others mislead it.", elem_id="prompt",
                )  # fmt: skip
                ask = gr.Button("Describe the sound", variant="primary", elem_id="describe")
            with gr.Column(scale=3, min_width=320):
                caption = gr.Textbox(label="Caption", lines=2, interactive=False, buttons=["copy"], elem_id="caption")
                picture = gr.HTML(elem_id="picture")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                labels = gr.Textbox(
                    LABELS, lines=5, max_lines=8, label="Which of these?", elem_id="labels",
                    info="One a line. Worded as captions, they are told apart far better than as bare names.",
                )  # fmt: skip
                rank = gr.Button("Rank the labels", elem_id="rank")
            with gr.Column(scale=3, min_width=320):
                ranking = gr.Label(label="Which of these, by likelihood", elem_id="ranking")

        answer = partial(gr.on, concurrency_id="model", concurrency_limit=1, show_progress="minimal")
        caption_it = friendly(partial(describe, captioner))
        answer(ask.click, caption_it, [sound, prompt], [caption, picture], api_name="describe")
        answer(
            rank.click, friendly(partial(rank_labels, captioner)), [sound, prompt, labels], ranking, api_name="rank"
        )
        # The answers about an earlier sound must not stand beside this one.
        gr.on([sound.input, sound.clear], lambda: ("", "", None), None, [caption, picture, ranking], queue=False)
    return page


def friendly(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Show wrong input as a message on the page; any other error says nothing there, and its trace is logged."""

    @wraps(answer)
    def ask(*inputs: Any) -> Any:
        try:
            return answer(*inputs)
        except ValueError as error:
            # The page shows the message as HTML, and anybody may choose a file's name.
            raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from error

    return ask


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
        run_history=False, footer_links=[], max_file_size="100mb", css_paths=Path(__file__).with_name("page.css"),
        theme=THEME, quiet=True,
    )  # fmt: skip
    return address
