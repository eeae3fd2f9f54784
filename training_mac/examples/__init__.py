"""
What does a step learn from? Recordings are varied, put together in scenes and batched.

Read `augmentation` (changes to one log-mel), `scenes` (one recording or two, with their caption), then `training_set`
(rows of tables) or `streaming` (shards), which draw scenes by seed, epoch and row alone; `encoded` keeps what a frozen
encoder says of them, `collating` makes the batch. Another augmentation is a function and a field of the recipe.
"""
