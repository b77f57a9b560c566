"""What the rows of public files hold, and how a problem is read from one."""

from fdjax.data.rows.shapes import SHAPES, ProblemFormat, Shape

__all__ = ["SHAPES", "ProblemFormat", "Shape"]
