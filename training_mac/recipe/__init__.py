"""
What may a user say? The fields of a recipe and the file that they stand in.

Read `fields` (what is built, trained, validated and kept) and `data_fields` (recordings and their augmentation), then
`file`, which reads YAML and command line into them. A new field is added to one of the two dataclasses, with its help
text and its marks; nothing in this room knows what becomes of it. `evaluations` reads the log of a training as a
recipe says.
"""
