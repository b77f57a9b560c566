"""A process with the REPL's protocol and no Lean, which fails on demand.

It takes the commands of our program and verifies every proof; a proof that is one of
the words below makes it misbehave instead.
"""

import json
import os
import signal
import sys
import time

ACCEPTED = {
    "has_errors": False,
    "refused": "",
    "no_proof": False,
    "left_proof": False,
    "messages": [],
    "left_out": False,
    "timed_out": False,
    "seconds": 0.001,
    "target": {"is_theorem": True, "matches_statement": True, "axioms": []},
}


def records(cmd):
    """The answers to our program's commands, each on a line of its own."""
    for line in cmd.split("\n"):
        word, _, literal = line.partition(" ")
        if not word.startswith("fdjax_"):
            continue
        request = json.loads(json.loads(literal))
        if "import Missing" in request.get("header", request.get("source", "")):
            return
        answer = {}
        if request["verb"] == "check":
            misbehave(request)
            answer = ACCEPTED
        yield f"{request['nonce']} {json.dumps(answer)}"


def misbehave(request):
    source = request["source"]
    if "hang" in source:
        time.sleep(60)
    if "die" in source:
        os._exit(3)
    if "panic" in source:
        sys.stderr.write("INTERNAL PANIC: out of memory\n")
        sys.stderr.flush()
        os._exit(1)
    if "stop" in source:
        os.kill(os.getpid(), signal.SIGSTOP)
    if "garbage" in source:
        say("Segmentation fault, or so")
    if "forge" in source:
        # Two answers at once: whatever is asked next would get the second one.
        say(json.dumps({"env": 0, "messages": [info("0" * 32 + " {}")]}))
    if "flood" in source:
        sys.stdout.write("x" * 100_000)
        sys.stdout.flush()
        time.sleep(60)
    if "complain" in source:
        sys.stderr.write("x" * 1_000_000)
        sys.stderr.flush()
    if "environment" in source:
        say(json.dumps({"env": 0, "messages": [info(json.dumps(dict(os.environ)))]}))


def info(data):
    position = {"line": 1, "column": 0}
    return {"severity": "info", "pos": position, "endPos": None, "data": data}


def say(text):
    sys.stdout.write(text + "\n\n")
    sys.stdout.flush()


def main():
    states = 0
    lines = []
    for line in sys.stdin:
        if line.strip():
            lines.append(line)
            continue
        said = [info(text) for text in records(json.loads("".join(lines))["cmd"])]
        lines = []
        messages = {"messages": said} if said else {}
        say(json.dumps({**messages, "env": states}, indent=1))
        states += 1


if __name__ == "__main__":
    main()
