"""``wsr <verb>``: what a person does with a population from the shell. Each verb is a file of its own.

Only the chosen verb's file is imported, and it imports JAX when it runs: ``wsr --help`` costs next to nothing.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from absl import flags

from wsr.runtime.printable import printable

VERBS = {
    "demo": "fine-tune, map, evaluate and merge a real population; ends with a report",
    "plan": "what studies, or a population of one's own, would take on a machine",
    "train": "fine-tune members of a population into a store",
    "import": "bring fine-tuned models of others, Hugging Face folders, into a store",
    "ls": "list the members of a store",
    "verify": "read everything in a store and say what is damaged; --repair sets it aside",
    "map": "similarity, clusters and a 2-D map of a store, or of a matrix of similarities",
    "check": "is a model inside a region of the store, and who should be left out of an average",
    "evaluate": "score members, their centroid and points between them on a dataset",
    "compare": "which of two groups of models is better on a dataset, stopping when that is sure",
    "suggest": "which point of a store is the best start for data of one's own",
    "merge": "merge members into one model and export it",
    "export": "write a member, the centroid or any point as a Hugging Face folder",
    "report": "render finished studies as one page",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0 when it did what was asked, 1 for an error, 2 for a wrong call."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from wsr import __version__

        print(__version__)
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        nearest = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; there are {', '.join(VERBS)}"
        return _complain(f"no verb is called {verb!r}{hint}", status=2)
    return _run(verb, rest)


def _run(verb: str, words: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_bool("debug", False, "Show the traceback of an error.", flag_values=values)
    module = importlib.import_module(f"wsr.cli.{verb}")
    module.define(values)
    if any(word in ("--help", "-h", "-help") for word in words):
        print(f"wsr {verb}: {(module.__doc__ or '').strip()}\n\nFlags:{values.get_help(prefix='  ')}")
        return 0
    try:
        positional = values([f"wsr {verb}", *words])[1:]
    except flags.Error as error:
        return _complain(f"wsr {verb}: {' '.join(str(error).split())}; see wsr {verb} --help", status=2)
    from wsr.errors import WsrError
    from wsr.runtime.preemption import STATUS, TOLD, Preempted, sigterm_raises

    try:
        with sigterm_raises():
            module.run(values, positional)
    except WsrError as error:
        if values.debug:
            raise
        return _complain(str(error))
    except Preempted:
        return _complain(TOLD, status=STATUS)
    except KeyboardInterrupt:
        return _complain("interrupted; what was finished is kept, the same command goes on from there", status=130)
    except BrokenPipeError:
        return 0
    except Exception as error:
        if values.debug:
            raise
        what = " ".join(str(error).split()) or "no message"
        return _complain(f"{type(error).__name__}: {what[:500]} (an error we did not foresee; --debug shows where)")
    return 0


def _complain(line: str, *, status: int = 1) -> int:
    print(f"wsr: error: {printable(' '.join(line.split()))}", file=sys.stderr)
    return status


def _overview() -> str:
    verbs = "\n".join(f"  {verb:<10}{what}" for verb, what in VERBS.items())
    return (
        "wsr: weight-space regions. Train, map, evaluate and merge models fine-tuned from one checkpoint.\n\n"
        f"wsr <verb> [--flags]\n\n{verbs}\n\n"
        "wsr <verb> --help tells its flags; --debug shows the traceback of an error."
    )
