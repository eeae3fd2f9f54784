"""
What is a model asked about? The published tables of data sets, their recordings, and the names of their classes.

`published` knows ten data sets; `tables` reads their files and `recordings` finds their audio. `label_lists` reads
lists of classes, of which eight ship in `labels/`; `labelled_clips` is what classification works on.
"""
