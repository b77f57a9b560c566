"""A pod in miniature: hosts that are processes of this machine, one of them lost.

`python -m tpu.rehearsal`, or `make pod-rehearsal`.
"""
