"""
How does training go on, whatever is taught? transformers' Trainer with parts, order, faults and speed.

Come in at `trainer`; beside it stand `adapters` (what learns, and how fast), `sampling` (the order of an epoch),
`validation` (captions are what is validated), `console` (what is shown), `checkpoints` and `averaging` (whole or they
do not count), `nan_guard` and `throughput`. It knows neither the objective nor the run's folder.
"""
