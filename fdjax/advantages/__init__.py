"""How good a sample was, compared with the others of its problem."""

from fdjax.advantages.group import centred, leave_one_out, zscore

__all__ = ["centred", "leave_one_out", "zscore"]
