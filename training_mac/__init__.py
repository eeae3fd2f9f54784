"""
Training: how does a recipe become a model that captions?

Come in at `cli`, which reads a recipe, runs it and releases what came of it. Imports run one way, and in this order
the rooms are best read from the bottom:

    cli -> run -> objectives -> examples -> data, loop -> recipe
    cli -> release

`recipe` holds every field that a user may set, `data` finds recordings and their texts, `examples` makes of them what
a step learns from, `loop` is transformers' Trainer with what a captioner needs, `objectives` says what is taught,
`run` is the folder that a training goes through, and `release` tells the world of it.
"""
