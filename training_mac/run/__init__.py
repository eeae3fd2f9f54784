"""
How does a recipe go through its stages, and where does it go on when it was stopped? Everything that knows the folder.

Come in at `folder` (`Run`: what is done and what is left), then `check` (what is refused beforehand), `building` (the
model it starts from), `stage` (one stage from its start to its result) and `saving` (the folder at the end).
"""
