"""
What is told of a finished training, and where does it go? Its card, whom to thank, its carbon, and the Hub.

Come in at `card`; `attribution` and `emissions` fill parts of it, `hub` pushes the folder as one commit. The room
reads a finished folder and never a running training.
"""
