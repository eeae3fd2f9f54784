"""The pipeline `pipeline("audio-captioning")`, which describes recordings in sentences."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import AutoModelForMultimodalLM, GenerationConfig, Pipeline

from .audio_mac import is_list_of_clips
from .audio_state_mac import AudioState
from .listening_mac import MIN_SEGMENT_SECONDS, CaptionStream


TASK = "audio-captioning"


class AudioCaptioningPipeline(Pipeline):
    """
    Captions clips of any length.

        captioner("dog.wav")                                  # [{"caption": "a dog barks"}]
        captioner(["dog.wav", "rain.flac"], batch_size=2)     # one such list a clip
        captioner("street.mp3", return_segments=True)         # ... "segments": [{"start", "end", "caption"}]

    A clip may be a path, URL, bytes, an open file, (rate, array), a dict with `array` and `sampling_rate`, or a row of
    `datasets` or its audio cell; see `load_waveform`. A column or rows of `datasets` are many clips, as a list is.

    Args (of the constructor or a call):
        prompt: Prompt of every clip; the processor's `default_prompt` if None.
        return_segments: Whether every window of 10.24 s gets one more caption, with `start` and `end` in seconds.
        sampling_rate: Rate in Hz of bare arrays.
        generate_kwargs: Arguments of `generate`, such as `{"num_beams": 4}`.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False
    _pipeline_calls_generate = True

    @property
    def is_compiled(self) -> bool:
        """Whether it decodes in C++: by the number of threads of its first token, since any other compiles anew."""
        return any(getattr(module, "decodes_compiled", False) for module in self.model.modules())

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Caption one clip or many, in any form that the class names; an empty list gives an empty list.

        Of a generator, or any other iterator, clips are taken as results are.
        """
        if isinstance(inputs, (list, tuple)) and not inputs:
            return []
        if isinstance(inputs, Iterator) and not hasattr(inputs, "read"):  # an open file gives lines, but is one clip
            inputs = (clip for clip in inputs)  # transformers knows generators alone
        if is_list_of_clips(inputs) and not isinstance(inputs, (list, torch.utils.data.Dataset)):
            return list(super().__call__((inputs[row] for row in range(len(inputs))), *args, **kwargs))
        return super().__call__(inputs, *args, **kwargs)

    def _sanitize_parameters(
        self,
        prompt: str | None = None,
        return_segments: bool | None = None,
        sampling_rate: Any = None,
        generate_kwargs: dict | None = None,
        **generation_parameters: Any,
    ) -> tuple[dict, dict, dict]:
        known = vars(GenerationConfig())
        for name in generation_parameters:
            if name not in known and name not in ("streamer", "generation_config"):
                raise TypeError(
                    f"{type(self).__name__} got an unexpected argument {name!r}; expected prompt, return_segments, "
                    "sampling_rate, generate_kwargs, batch_size, num_workers or an argument of `generate`."
                )
        forward = {**(generate_kwargs or {}), **generation_parameters}
        if prompt is not None:
            if not isinstance(prompt, str):
                raise ValueError(f"`prompt` is {prompt!r}; expected a string, which every clip is asked.")
            forward["prompt"] = prompt
        if return_segments is not None:
            forward["return_segments"] = return_segments
        return {} if sampling_rate is None else {"sampling_rate": sampling_rate}, forward, {}

    def preprocess(self, audio: Any, sampling_rate: Any = None) -> dict[str, Any]:
        """
        Decode a clip to its waveform, (samples,), and no more.

        Windows are made later: transformers would pad tensors here and so mix the windows of different clips.
        """
        waveforms = self.processor.feature_extractor.load(audio, sampling_rate)
        if len(waveforms) != 1:
            raise ValueError(f"Expected one clip an item, got a list of {len(waveforms)}.")
        return {"waveform": waveforms[0]}

    def _forward(
        self,
        model_inputs: dict[str, Any],
        prompt: str | None = None,
        return_segments: bool = False,
        **generate_kwargs: Any,
    ) -> dict[str, Any]:
        waveforms = model_inputs["waveform"]
        batched = isinstance(waveforms, list)
        waveforms = waveforms if batched else [waveforms]
        extractor = self.processor.feature_extractor
        features = extractor(waveforms, sampling_rate=extractor.sampling_rate)
        counts = features["audio_num_windows"].tolist()
        captions = self.generate(features["input_features"], counts, prompt, generate_kwargs)
        outputs: dict[str, list] = {"caption": captions}
        if return_segments:
            windows = features["input_features"].split(counts)
            outputs["segments"] = [
                self.caption_segments(*clip, prompt, generate_kwargs)
                for clip in zip(waveforms, windows, captions, strict=True)
            ]
        return outputs if batched else {key: value[0] for key, value in outputs.items()}

    def listen(self, audio: Any, sampling_rate: Any = None) -> AudioState:
        """
        Hear one clip and keep the state after it, to be asked, scored and saved; see `AudioState`.

        What it is asked by default is the prompt of the pipeline.
        """
        waveform = self.preprocess(audio, sampling_rate)["waveform"]
        extractor = self.processor.feature_extractor
        state = AudioState(self.model, self.processor, self._forward_params.get("prompt"))
        features = extractor([waveform], sampling_rate=extractor.sampling_rate)["input_features"]
        state.hear(features, len(waveform) / extractor.sampling_rate)
        return state

    def search(self, audio: Any, searches: Sequence[dict[str, Any]], sampling_rate: Any = None) -> list[list[str]]:
        """
        Caption one clip by several searches that go on from one reading of the clip and the prompt.

        Args:
            audio: One clip, in any form that the class names.
            searches: Arguments of `generate` of each search, on top of those of the pipeline.
            sampling_rate: Rate in Hz of a bare array.

        Returns:
            The captions of each search, best first; several with `num_return_sequences`.
        """
        given = {
            name: value for name, value in self._forward_params.items() if name not in ("return_segments", "prompt")
        }
        arguments = [self._prepare_generate_kwargs({**given, **search}) for search in searches]
        return self.listen(audio, sampling_rate).search(arguments)

    def stream(self, **options: Any) -> CaptionStream:
        """Make a `CaptionStream` of this model, with its options such as `cut` and `memory`."""
        return CaptionStream(self.model, self.processor, **options)

    def caption_segments(
        self, waveform: Any, windows: torch.Tensor, caption: str, prompt: str | None, generate_kwargs: dict
    ) -> list[dict[str, Any]]:
        """
        Caption each window of one clip as a clip of its own.

        Args:
            waveform: Samples of the clip, (samples,), which tell its length.
            windows: Log-mel windows of the clip, (windows, frames, mel bins).
            caption: Caption of the whole clip, which serves a clip of one window.
            prompt: Prompt of every window; the processor's default if None.
            generate_kwargs: Arguments of `generate`.
        """
        extractor = self.processor.feature_extractor
        times = segment_times(len(waveform) / extractor.sampling_rate, len(windows), extractor.window_seconds)
        captions = [caption]
        if len(windows) > 1:
            captions = self.generate(windows[: len(times)], [1] * len(times), prompt, generate_kwargs)
        return [
            {"start": start, "end": end, "caption": text} for (start, end), text in zip(times, captions, strict=True)
        ]

    def generate(
        self,
        input_features: torch.Tensor,
        num_windows: list[int],
        prompt: str | list[str] | None,
        generate_kwargs: dict,
    ) -> list[str]:
        """
        Generate one caption for each clip.

        Args:
            input_features: Log-mel windows of all clips, (windows, frames, mel bins).
            num_windows: Number of windows of each clip.
            prompt: Prompt of every clip, or one for each; the processor's default if None.
            generate_kwargs: Arguments of `generate`.
        """
        inputs = {
            **self.processor.encode(num_windows, prompt),
            "input_features": input_features,
            "audio_num_windows": torch.tensor(num_windows),
        }
        inputs = self.ensure_tensor_on_device(**inputs)
        output = self.model.generate(**inputs, **self._prepare_generate_kwargs(generate_kwargs))
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        if len(sequences) != len(num_windows):
            raise ValueError("The pipeline gives one caption a clip; for more, call `model.generate` itself.")
        return self.processor.batch_decode(sequences[:, inputs["input_ids"].shape[1] :])

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a clip's caption and, if asked for, its segments, in a list as transformers' captioners do."""
        return [dict(model_outputs)]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save model, processor and this pipeline's code in one folder that loads with `trust_remote_code=True`."""
        # transformers writes this private field into the configuration. `register_pipeline` sets it with the default
        # model, which is a path on this machine, and in a saved folder's code nothing sets it.
        self._registered_impl = {TASK: {"impl": type(self), "pt": (AutoModelForMultimodalLM,), "type": "multimodal"}}
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def segment_times(seconds: float, num_windows: int, window_seconds: float) -> list[tuple[float, float]]:
    """
    Return the start and the end in seconds of each segment of a clip.

    Args:
        seconds: Length of the clip.
        num_windows: Number of its windows; a very short last one belongs to the segment before it.
        window_seconds: Length of a window.
    """
    starts = [index * window_seconds for index in range(num_windows)]
    starts = starts[:1] + [start for start in starts[1:] if seconds - start >= MIN_SEGMENT_SECONDS]
    ends = [*starts[1:], seconds]
    return [(round(start, 3), round(end, 3)) for start, end in zip(starts, ends, strict=True)]


__all__ = ["TASK", "AudioCaptioningPipeline", "segment_times"]
