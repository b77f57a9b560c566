"""Processes of ours: confined, watched and ended; how many this machine holds."""
