"""Launching an experiment on TPUs: machines and commands, never models.

Each way is a command: `python -m tpu.gcloud`, `python -m tpu.gke`, `python -m tpu.sky`.
"""
