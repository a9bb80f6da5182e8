"""``wsr <verb>``: what a person does with a population from the shell. Each verb is a file of its own.

A verb has a ``PAGE``, which declares its flags and its help, and a function ``run``. Only the chosen verb's file is
imported, and it imports JAX when it runs: ``wsr --help`` costs next to nothing.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from wsr.cli.program import call, complain
from wsr.errors import WsrError

VERBS = {
    "demo": "fine-tune, map, evaluate and merge a small population, and write a report",
    "plan": "estimate the time, memory, disk and cost of a population or of the paper's studies",
    "train": "fine-tune members on datasets and keep them in a store",
    "import": "add fine-tuned Hugging Face models to a store",
    "ls": "list the members of a store",
    "verify": "read a whole store and name what is damaged",
    "map": "show similarities, clusters and a 2-D map of a population",
    "check": "test whether a model belongs to a population, and which members do not",
    "diff": "show what differs between two models: weights, config, vocabulary",
    "lineage": "test whether models have a common origin, and which descends from which",
    "align": "write a model with its units in the order of another, to merge the two",
    "atlas": "sketch any number of models of one base, find what a model resembles, and draw them",
    "evaluate": "score members, their centroid and points of their hull on a dataset",
    "explore": "write a page in which you drag a point through a population and see its scores",
    "pareto": "find the models between the members that compromise best between datasets",
    "compare": "test which of two groups of models is better, with as few forward passes as needed",
    "suggest": "rank the starts for fine-tuning on your own data",
    "merge": "merge members into one model and export it",
    "bench-merging": "rank all ways to merge the members of a store",
    "average": "average checkpoints of one training run",
    "export": "write a member, the centroid or any other point as a Hugging Face folder or a LoRA adapter",
    "extract": "make a LoRA adapter of a model that was fine-tuned in full",
    "report": "write finished runs as one page",
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
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(VERBS)}"
        return complain("wsr", f"no verb is called {verb!r}; {hint}", status=2)
    try:
        module = importlib.import_module(f"wsr.cli.{verb.replace('-', '_')}")
    except WsrError as error:  # a merge method of an installed package that cannot be used
        return complain(f"wsr {verb}", str(error))
    return call(module.PAGE, module.run, rest)


def _overview() -> str:
    verbs = "\n".join(f"  {verb:<15}{what}" for verb, what in VERBS.items())
    return (
        "Usage: wsr <verb> [options]\n\n"
        "Train, map, evaluate and merge populations of models fine-tuned from one checkpoint.\n\n"
        f"Verbs:\n{verbs}\n\n"
        "wsr <verb> --help shows a verb's options and examples."
    )
