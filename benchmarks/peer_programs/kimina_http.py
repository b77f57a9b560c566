"""The published Kimina client behind two pipes; runs in an environment that has it.

    python kimina_http.py URL

A line of the input is a JSON list of sources, the answer is the list of the client's
judgements.
"""

import json
import sys
import typing

import typing_extensions

if sys.version_info < (3, 12):
    # kimina-client 0.2.1 uses the standard one, which pydantic refuses before 3.12.
    typing.TypedDict = typing_extensions.TypedDict

from kimina_client import KiminaClient, Snippet, SnippetStatus

TIMEOUT_S = 60


def main() -> None:
    """Answer until the input ends."""
    client = KiminaClient(api_url=sys.argv[1])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        sources = json.loads(line)
        snippets = [Snippet(id=str(n), code=code) for n, code in enumerate(sources)]
        response = client.check(snippets, timeout=TIMEOUT_S, show_progress=False)
        found = {each.id: each.analyze().status for each in response.results}
        valid = [found[str(n)] == SnippetStatus.valid for n in range(len(sources))]
        print(json.dumps(valid), flush=True)


if __name__ == "__main__":
    main()
