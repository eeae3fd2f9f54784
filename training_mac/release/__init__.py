"""
What is told of a finished training, and where does it go? Its summary, its curve, its card, and the Hub.

Come in at `card`; `attribution` (whom to thank), `emissions` and `curve` fill parts of it, `summary` is for the
console, and `hub` pushes the folder as one commit. The room reads a finished folder and never a running training.
"""
