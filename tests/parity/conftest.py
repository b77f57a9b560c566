"""Figures that tests record as `("parity", (row, column, value))`, in a table."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _threads():
    """PyTorch and XLA share the cores; each brings threads of its own."""
    torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    table = {}
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties if report.when == "call" else ():
            if name == "parity":
                row, column, figure = value
                table.setdefault(row, {})[column] = figure
    columns = list(dict.fromkeys(c for row in table.values() for c in row))
    if table:
        write = terminalreporter.write_line
        write("| | " + " | ".join(columns) + " |")
        write("|---|" + "---|" * len(columns))
        for row, figures in table.items():
            cells = [f"{figures[c]:.1e}" if c in figures else "" for c in columns]
            write(f"| {row} | " + " | ".join(cells) + " |")
