"""The process of one side: `peer.py signal` or `peer.py sigwright`. Started by harness.Peer."""

import importlib
import json
import os
import sys


def main() -> None:
    # Nothing that a benchmark prints may get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal = importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        function = getattr(importlib.import_module(request["module"]), request["function"])
        try:
            reply = {"result": function(signal, *request["args"])}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
