"""Runs: configuration, folder, screen, log of attempts."""
