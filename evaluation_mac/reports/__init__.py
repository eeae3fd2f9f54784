"""
What does a reader see? Figures as files, plots and lines of a model card.

`evaluation` is what every protocol hands back; `report` writes it as JSON, CSV and Markdown, `plots` draws it,
`model_card` puts it where the Hub reads it.
"""
