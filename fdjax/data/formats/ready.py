"""Prompt formats: ours, and those that provers were published with.

Each published one names the model card it follows. The texts are the cards' own, to the
byte: a prover answers best when it is asked as it was trained.
"""

from dataclasses import replace

from fdjax.data.formats.format import PromptFormat
from fdjax.judge.answer import AfterThinking, last_fence, up_to_fence, whole_text

__all__ = [
    "CHAT",
    "CHAT_THINKING",
    "COMPLETION",
    "DEEPSEEK_V1",
    "DEEPSEEK_V2",
    "GOEDEL_V2",
    "KIMINA",
    "PLAIN",
    "QWEN3",
    "QWEN3_NO_THINKING",
]

_CONTINUED = "{{ bos_token }}{{ messages[0]['content'] }}{{ '\\n' }}"
"""The beginning of a text, for models without a chat."""
_PLAN = (
    "Before producing the Lean 4 code to formally prove the given theorem, provide a "
    "detailed proof plan outlining the main proof steps and strategies.\n"
    "The plan should highlight key ideas, intermediate lemmas, and proof structures "
    "that will guide the construction of the final formal proof."
)

PLAIN = PromptFormat(
    user="{{ header }}{{ theorem }}",
    informed="{{ feedback }}\n{{ question }}",
    answer="{{ proof }}",
    extract=whole_text,
)
"""The theorem alone, answered with the tactics alone: for models trained from scratch.

Feedback comes first, so that the distance from statement to proof is the same for
student and teacher."""

COMPLETION = replace(
    PLAIN,
    informed="{{ feedback | comment }}{{ question }}",
    chat_template=_CONTINUED,
)
"""A Lean file up to `:= by`, for base models; feedback is a comment before it."""

DEEPSEEK_V1 = PromptFormat(
    user="Complete the following Lean 4 code:\n\n```lean4\n{{ opened }}",
    informed="{{ feedback }}\n{{ question }}",
    answer="{{ proof }}\n```\n",
    extract=up_to_fence,
    chat_template=_CONTINUED,
)
"""DeepSeek-Prover-V1.5 without a plan: the model goes on inside a code fence.

STP and Goedel-Prover-SFT, made from it, are asked alike, the latter `with explanatory
comments preceding each line of code`."""

CHAT = PromptFormat(
    user=(
        "Prove this theorem in Lean 4. Replace `sorry` with a proof.\n\n"
        "{{ file | fenced }}\n\n"
        "End your answer with the complete file in one `lean4` code block."
    ),
    answer="{{ solved | fenced }}",
    extract=last_fence,
)
"""For any chat model, by its own chat template."""

CHAT_THINKING = replace(
    CHAT,
    answer="\n</think>\n\n{{ solved | fenced }}",
    extract=AfterThinking(extract=last_fence, opened=True),
)
"""For chat models whose template opens the thinking in the prompt."""

QWEN3 = replace(CHAT, arguments={"enable_thinking": True})
"""Qwen3 that thinks first; its answer is behind `</think>`."""

QWEN3_NO_THINKING = replace(CHAT, arguments={"enable_thinking": False})
"""Qwen3 that answers at once: its template closes the thinking in the prompt."""

DEEPSEEK_V2 = replace(
    CHAT,
    user=f"Complete the following Lean 4 code:\n\n{{{{ file | fenced }}}}\n\n{_PLAN}",
)
"""DeepSeek-Prover-V2 with a plan, as on its model card."""

GOEDEL_V2 = replace(
    CHAT,
    user=(
        "Complete the following Lean 4 code:\n\n"
        f"{{{{ file | fenced(end='') }}}}\n\n{_PLAN}"
    ),
)
"""Goedel-Prover-V2, as on its model card, where the fence follows `sorry` directly."""

KIMINA = replace(
    CHAT,
    system="You are an expert in mathematics and Lean 4.",
    user=(
        "Think about and solve the following problem step by step in Lean 4.\n"
        "# Problem:{{ informal }}\n"
        "# Formal statement:\n"
        "{{ opened | fenced(end='\\n\\n') }}\n"
    ),
)
"""Kimina-Prover, as on its model card: it is shown no `sorry`, and it thinks first."""
