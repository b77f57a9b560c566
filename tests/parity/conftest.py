"""Figures that tests record, printed at the end as a table."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _threads():
    """PyTorch and XLA share the cores; each brings threads of its own."""
    import torch

    torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    lines = [
        f"{name}: {value}"
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if report.when == "call"
    ]
    for line in lines:
        terminalreporter.write_line(line)
