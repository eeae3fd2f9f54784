"""
How good is a caption, a ranking or a class? Texts and numbers in, scores out; no model is asked.

Come in at `scoring`, the one entry to all captioning metrics; each metric is a file (`bleu`, `rouge`, `cider`,
`meteor`, `spice`, …) on the tokens of `ptb_tokenizer`. `bootstrap` gives their intervals. `esc50_naming` asks whether
a caption names the right sound; it is chosen by name, and nothing general imports it.
"""
