"""What a run needs of TPUs, said by their own compiler before one is rented."""

from fdjax.plan.report import Plan, make_plan
from fdjax.plan.subject import Subject

__all__ = ["Plan", "Subject", "make_plan"]
