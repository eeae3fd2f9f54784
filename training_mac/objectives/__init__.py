"""
What is taught? Each objective makes its trainer of a model, a stage's fields and the clips.

`captions` is the usual one. `tags` teaches a new encoder to hear before it learns to speak, with `teacher` to imitate
and `whitening` to start from; docs/encoder_methods.md explains them. `distillation` teaches captions with a larger MAC
beside them; docs/distillation.md. A new objective is a file here and a row in
`run.stage`; it takes files and folders, and never a `Run`.
"""
