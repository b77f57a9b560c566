"""What a language model is told about attempts: excerpts and versioned templates."""

from fdjax.feedback.prompt.excerpt import Caps, Excerpt, Message, excerpt, theorem_of
from fdjax.feedback.prompt.template import Template

__all__ = ["Caps", "Excerpt", "Message", "Template", "excerpt", "theorem_of"]
