"""Proofs through the real LeanDojo package; prints results as JSON.

Lean itself is a stand-in, `lake` on the path: it speaks the protocol of LeanDojo's
Lean4Repl and answers by words in the proof. Run with the folder to work in.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

TRACED = Path(__file__).parents[2] / "data" / "traced"
NAME = "repository"
LAKE = """#!{python}
import json, sys, time
source = open(sys.argv[-1]).read()
assert source.startswith("import Lean4Repl"), source[:80]
if "theorem one_line" in source.split("lean_dojo_repl")[0].rsplit("\\n\\n", 1)[-1]:
    goal = "p q : Prop\\nh : p ∧ q\\n⊢ q ∧ p"
else:
    goal = "⊢ something else"
def reply(state, error):
    answer = dict(sid=None if error else 1, tacticState=state, error=error)
    print("REPL> " + json.dumps(answer, ensure_ascii=False), flush=True)
reply(goal, None)
for line in sys.stdin:
    tactic = json.loads(line)["cmd"]
    if "hang" in tactic: time.sleep(60)
    elif "die" in tactic: sys.exit(1)
    elif "open" in tactic: reply(goal, None)
    elif "sorry" in tactic: reply(None, "proof contains `sorry`")
    elif "malformed" in tactic: reply(None, "<stdin>:2:1: expected tactic")
    elif "wrong" in tactic: reply(None, "unknown identifier\\n")
    else: reply("no goals", None)
"""


def git(folder, *command):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *command], cwd=folder, check=True, timeout=30)


def make_repository(work):
    """A traced repository as LeanDojo leaves it in its cache."""
    source = work / NAME
    source.mkdir()
    shutil.copy(TRACED / "Shapes.lean", source)
    (source / "lean-toolchain").write_text("leanprover/lean4:v4.20.0\n")
    git(source, "init", "-q")
    git(source, "add", ".")
    git(source, "commit", "-q", "-m", "All")
    head = ["git", "rev-parse", "HEAD"]
    commit = subprocess.check_output(head, cwd=source, text=True, timeout=30).strip()
    traced = work / "cache" / f"gitpython-{NAME}-{commit}" / NAME
    shutil.copytree(source, traced)
    (traced / "Lean4Repl.lean").touch()
    build = traced / ".lake" / "build" / "ir"
    build.mkdir(parents=True)
    for file in TRACED.glob("Shapes.*"):
        if file.suffix != ".lean":
            shutil.copy(file, build)
    return source, traced


def main(work):
    source, traced = make_repository(work)
    lake = work / "bin" / "lake"
    lake.parent.mkdir()
    lake.write_text(LAKE.replace("{python}", sys.executable))
    lake.chmod(lake.stat().st_mode | stat.S_IXUSR)
    os.environ["PATH"] = f"{lake.parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["CACHE_DIR"] = str(work / "cache")
    os.environ["DISABLE_REMOTE_CACHE"] = "1"
    os.environ["NUM_PROCS"] = "1"
    os.environ.pop("GITHUB_ACCESS_TOKEN", None)

    import lean_dojo

    from fdjax.data.traced import read_trace
    from fdjax.lean import FakeBackend, Limits, Verifier
    from fdjax.lean.backends.dojo import LeanDojoBackend
    from fdjax.lean.backends.fake import accepted, rejected

    repo = lean_dojo.LeanGitRepo.from_path(source)
    trace = read_trace(traced)
    confirming = FakeBackend(
        lambda r: rejected("denied") if "cheat" in r.proof else accepted()
    )
    backend = LeanDojoBackend(repo, trace.theorems, lambda: confirming)
    problems = {t.problem.name: t.problem for t in trace.theorems}
    proofs = [
        "fine",
        "cheat",
        "wrong",
        "open",
        "sorry",
        "malformed",
        "hang",
        "die",
        "fine " + "-- much text\n" * 400,
        "fine again",
    ]
    items = [(problems["one_line"], f"  {proof}") for proof in proofs]
    items.append((problems["term"], "  fine"))
    limits = Limits(wall_s=1.0)
    with Verifier(lambda: backend, workers=1, limits=limits) as verifier:
        verdicts = verifier.verify(items)
        asked = [request.proof.split()[0] for request in confirming.requests]
        slow = threading.Thread(
            target=verifier.verify, args=([(problems["term"], "  hang on")],)
        )
        slow.start()
        time.sleep(0.5)
        begin = time.monotonic()
    seconds = time.monotonic() - begin
    slow.join(timeout=10)
    tree = lean_dojo.TracedFile.from_xml(
        traced, traced / ".lake/build/ir/Shapes.trace.xml", repo
    )
    theorems = []
    tree.traverse_preorder(
        lambda node, _: (
            theorems.append(node)
            if type(node).__name__ == "CommandTheoremNode"
            else None
        )
    )
    result = {
        "statuses": [verdict.status.name for verdict in verdicts],
        "texts": [v.errors[0].text if v.errors else "" for v in verdicts],
        "goals": [len(verdict.goals) for verdict in verdicts],
        "asked": asked,
        "identity": verifier.identity,
        "close_s": seconds,
        "left": sorted(path.name for path in traced.glob("Shapes*.lean")),
        "theirs": [[node.full_name, node.start.line_nb] for node in theorems],
        "ours": [[t.full_name, t.line] for t in trace.theorems],
        "skipped": [skipped.line for skipped in trace.skipped],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
