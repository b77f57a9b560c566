"""`generate` of transformers as `benchmarks.sampling` asks for it; needs PyTorch.

A process reads a JSON object a line and answers with one: "load" a folder, then "batch"
as often as asked. It exits at the end of its input.
"""

import json
import resource
import sys
import time
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    """Answer each line."""
    model = None
    for line in sys.stdin:
        task = json.loads(line)
        if task["do"] == "load":
            model = AutoModelForCausalLM.from_pretrained(
                task["folder"], dtype=torch.float32
            ).eval()
            names = ("transformers", "torch")
            answer = {"versions": {name: version(name) for name in names}}
        else:
            answer = batch(model, task["prompts"], task["new_tokens"])
        print(json.dumps(answer), flush=True)


def batch(model, prompts: list[list[int]], new_tokens: int) -> dict[str, float]:
    """Seconds for so many tokens after each prompt, drawn at temperature 1."""
    ids = torch.tensor(prompts)
    torch.manual_seed(0)
    begin, wall = processor_seconds(), time.perf_counter()
    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
        )
    found = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": processor_seconds() - begin,
    }
    drawn = out.shape[0] * (out.shape[1] - ids.shape[1])
    assert drawn == len(prompts) * new_tokens
    return found


def processor_seconds() -> float:
    """Seconds of all threads, in this program and in the kernel for it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
