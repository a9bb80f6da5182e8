"""The options of merge methods as flags, with the words and defaults of each (method, option); a page a method."""

from wsr.cli.flags import Flag, Group, Page
from wsr.errors import WsrError
from wsr.merging.method import METHODS, Option, find, options_of

SUMMARIES = {
    "uniform": "average of all members, the centroid",
    "weighted": "weighted average of the members",
    "linear": "weighted average, by the name that mergekit uses",
    "task_arithmetic": "sum of the task vectors, scaled and added to the base",
    "slerp": "spherical interpolation of two members",
    "multislerp": "spherical average of any number of members",
    "karcher": "Karcher mean: the point with the least sum of squared angles",
    "model_stock": "average pulled towards the base by the angle between members",
    "ties": "largest entries of each task vector, averaged where their signs agree",
    "dare_linear": "random entries of each task vector, summed",
    "dare_ties": "random entries of each task vector, averaged where their signs agree",
    "della": "random entries, larger ones more often, averaged where their signs agree",
    "della_linear": "random entries, larger ones more often, summed",
    "breadcrumbs": "entries of each task vector that are neither the largest nor the smallest, summed",
    "breadcrumbs_ties": "the same entries as breadcrumbs, averaged where their signs agree",
    "sce": "entries in which the members differ most, averaged where their signs agree",
    "ram": "entries that one member changed as they are, those that several changed averaged",
    "ramplus_tl": "as ram, with the entries that one member changed raised",
    "consensus": "sum of the task vectors where several members use the entry",
    "emr": "largest entry of any task vector with the sign of their sum",
    "pcb": "average of the task vectors by how each entry competes with others and with other members",
    "lines": "sum of the task vectors with a factor that grows with the depth of the layer",
    "nuslerp": "spherical interpolation of two members by weights, as in mergekit",
    "nearswap": "base moved towards one member where the two are close",
    "arcee_fusion": "base with the entries of one member that matter most",
    "passthrough": "copy of one member, scaled",
    "iso_c": "sum of the task matrices with equal singular values",
    "iso_cts": "directions that the tasks share and directions of each task, with equal singular values",
    "tsv_m": "largest singular directions of each task matrix, made orthogonal and summed",
    "wudi": "matrices that interfere least with the tasks, by gradient steps without data",
    "knots": "aligned parts of adapters, which share singular vectors, merged by ties or dare_ties",
    "core_space": "adapters in a small space that they share, merged by tsv_m, iso_c or ties",
    "greedy": "average to which members are added while the validation loss on --on does not rise",
    "learned": "point of the convex hull with a low loss on --on, by polynomials and exact checks",
    "learned_free": "point with the lowest validation loss on --on, coefficients of any sign and sum, by gradients",
    "fisher": "average weighted by the Fisher information of the members' own texts",
    "regmean": "least-squares fit of each dense layer to the members' outputs on their own texts",
    "regmean_plus_plus": "as regmean, layer by layer on what the merged layers before it compute",
    "adamerging": "coefficients that make the members' answers on their own texts the most certain",
}
"""One line on each method of this package."""


def options() -> tuple[str, ...]:
    """The names of all options of all methods."""
    return tuple(dict.fromkeys(option for name in METHODS for option in options_of(find(name))))


def unlisted() -> tuple[Flag, ...]:
    """A flag for each option of any method, read as a word; which of them a method has, ``made`` checks."""
    return tuple(Flag(name, "An option of some methods.", otherwise="the method's own") for name in options())


def refuse_clashes(page: Page) -> None:
    """Raises ``WsrError`` if a method has an option with the name of another flag of the page."""
    taken = {flag.name for group in page.groups for flag in group.flags}
    for name in METHODS:
        if clash := taken & options_of(find(name)).keys():
            raise WsrError(f"merge method {name}: wsr merge has a flag --{min(clash)} itself; rename the option")


def method_page(name: str) -> Page:
    """The page of one method: its options alone, in its own words."""
    kind = find(name)
    own = tuple(_flag(option, about) for option, about in options_of(kind).items())
    needed = {"dataset": " --on=made_up_a2", "own": ""}
    first = ("made_up_a1-full-s0", "made_up_a1-full-s1")[: kind.members[1] or 0]
    few = f" --members={','.join(first)}" if first else ""
    more = few + "".join(needed[what] for what in kind.needs) + (" --max_length=48" if kind.needs else "")
    on = f" --on=DATASET{',...' * getattr(kind, 'several', False)}" if "dataset" in kind.needs else ""
    notes = {
        "dataset": "It chooses coefficients on the probe and validation splits of --on; the test split plays no part.",
        "own": "It reads texts of the datasets on which the members were fine-tuned; --own names them if they moved.",
    }
    return Page(
        "wsr merge",
        f"wsr merge --method={name} --store=STORE --to=FOLDER{on} [options]",
        f"Merge members by {name}: {_summary(name)}.",
        (f"wsr merge --method={name} --store=runs/mine{more} --to=runs/{name}",),
        (Group(f"Options of {name}", own),) if own else (),
        (
            *(notes[what] for what in kind.needs),
            "" if own else f"The method {name} has no options of its own.",
            "wsr merge --help shows the options that all methods share; docs/merging.md has formulas and sources.",
        ),
    )


def method_table(width: int = 100) -> str:
    """Every method with its line and the names of its options, at most ``width`` columns wide."""
    import textwrap

    at = 20
    lines = ["Methods, with the names of their options in brackets:"]
    for name in METHODS:
        own = ", ".join(options_of(find(name)))
        text = textwrap.wrap(f"{_summary(name)}{f' [{own}]' if own else ''}", width - at)
        lines += [f"  {name}".ljust(at) + text[0], *(" " * at + line for line in text[1:])]
    return "\n".join(lines)


def _summary(name: str) -> str:
    """One line on a method; one from another package has the first line of its docstring."""
    return SUMMARIES.get(name) or (find(name).__doc__ or name).strip().partition("\n")[0].removesuffix(".")


def _flag(name: str, option: Option) -> Flag:
    return Flag(
        name,
        option.what,
        option.default,
        accepts=option.allowed.removeprefix("a "),
        otherwise=option.otherwise,
    )
