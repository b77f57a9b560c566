"""What the rows of public files hold, and how a problem is read from one."""

from fdjax.data.rows.shapes import ProblemFormat

__all__ = ["ProblemFormat"]
