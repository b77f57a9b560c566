"""From problems and submissions to verdicts: cache, scan, workers, judgement."""
