"""
Where do recordings and their texts come from? One reader a format, each ending in a table of clips.

Come in at `sources`, whose table of readers names the formats; `hub_datasets` is one that needs a file of its own,
`shards` is the one that cannot be listed. `clip_table` keeps millions of clips in little memory,
`features` computes and caches their log-mels, and `check` looks at all of it before training starts. A new format is
one more reader. `paraphrases` reads other wordings of the captions; `paraphrase_cli` makes them by `back_translation`.
"""
