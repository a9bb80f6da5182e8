"""says whether a model belongs to a population: wsr check CANDIDATE --store=S. CANDIDATE is a member of the store, a
Hugging Face folder, a LoRA adapter or a hub name. Does it share the base, which regions is it inside of, which members
does it lean on, does anything speak against it? Without CANDIDATE every member is held to the others, and it is said
who should be left out before anything is averaged."""

import json
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from wsr.region.region import Region
    from wsr.report.document import Section
    from wsr.store import Store


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_string("store", None, "The store.", flag_values=values)
    flags.DEFINE_bool("json", False, "Print JSON and nothing else.", flag_values=values)
    flags.DEFINE_string("out", None, "Folder for check.html.", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Checks, prints and writes a page."""
    import sys
    from pathlib import Path

    from wsr.cli.checks import refuse_positional, required

    refuse_positional(positional[1:])
    required("--store", values.store)
    # What is told of the work on the way is no JSON.
    with redirect_stdout(sys.stderr) if values.json else nullcontext():
        found, section = _candidate(values, positional[0]) if positional else _everyone(values)
        title = Path(positional[0]).name if positional else "All members"
        page = _write(values, title, section)
    if values.json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        _show(section)
        print(f"page: {page}")


def _candidate(values: flags.FlagValues, wanted: str) -> "tuple[dict, Section]":
    from wsr.cli.command import command_of
    from wsr.exchange.candidate import place
    from wsr.region.check import check_candidate
    from wsr.studies.standing import candidate_section

    store, region = _open(values.store)
    population, at, facts = place(region, wanted)
    checked = check_candidate(population, at, _doubtful(store, region))
    section = candidate_section(checked, population, facts, command_of("check", values, [wanted]))
    return {**checked.to_json(), "notes": list(facts)}, section


def _everyone(values: flags.FlagValues) -> "tuple[dict, Section]":
    from wsr.cli.command import command_of
    from wsr.region.check import check_candidate
    from wsr.region.standing import Population
    from wsr.studies.standing import store_section

    store, region = _open(values.store)
    population, doubtful = Population.of(region), _doubtful(store, region)
    found = [check_candidate(population, place, doubtful) for place in range(len(region))]
    reasons = {
        own.name: [flag.told for flag in own.flags] + ["it did no better than chance"] * (place in doubtful)
        for place, own in enumerate(found)
        if own.flags or place in doubtful
    }
    section = store_section(found, reasons, population, command_of("check", values))
    members = [{**own.to_json(), "leave_out": reasons.get(own.name, [])} for own in found]
    return {"store": str(store.path), "leave_out": list(reasons), "members": members}, section


def _open(path: str) -> "tuple[Store, Region]":
    """The store and the region of all its members, whatever they learned."""
    from wsr.errors import WsrError
    from wsr.region.region import Region
    from wsr.store import Store

    store = Store.open(path)
    region = Region.from_store(store)
    if not len(region):
        raise WsrError(f"{path} has no members yet, so there is nothing to be checked against: wsr train or wsr import")
    return store, region


def _doubtful(store: "Store", region: "Region") -> list[int]:
    from wsr.region.learned import learned

    return [place for place, name in enumerate(region.names) if not learned(store.record(name))]


def _show(section: "Section") -> None:
    from wsr.cli.tables import show_table
    from wsr.runtime.printable import printable

    for line in section.text:
        print(printable(line))
    for table in section.tables:
        print()
        show_table(table.columns, table.rows, title=table.title)
    print()


def _write(values: flags.FlagValues, title: str, section: "Section") -> str:
    from pathlib import Path

    from wsr.report.document import Document
    from wsr.report.page import write_page

    out = Path(values.out) if values.out else Path("runs") / f"check-{Path(values.store).stem}"
    out.mkdir(parents=True, exist_ok=True)
    page = out / "check.html"
    write_page(Document(f"{title} in {Path(values.store).name}", (), {"Store": values.store}, (section,)), page)
    return str(page)
