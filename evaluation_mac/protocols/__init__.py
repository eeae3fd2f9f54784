"""
How is a model asked? Each protocol goes through a manifest, keeps every answer and scores them all.

`captioning`, `classification`, `retrieval` and `transcription` are the tasks that score answers, `intensity` and
`tokens` look into a model. `collector` and `clip_records` ask and keep answers, so that a stopped evaluation goes on,
`likelihood` and `clap_refine` are two ways to ask, `label_protocols` says how LTU and SAM compare captions with
labels. A new task is a file here and a row in `evaluation_mac.cli`.
"""
