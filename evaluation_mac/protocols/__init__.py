"""
How is a model asked? Each protocol goes through a manifest, keeps every answer and scores them all.

`captioning`, `classification` and `retrieval` are the three tasks; `clip_records` keeps answers so that a stopped
evaluation goes on, `likelihood` and `clap_refine` are two ways to ask. A new protocol is a file here and a row in
`evaluation_mac.cli`.
"""
