"""``wsr check``: whether a model belongs to a population."""

import json
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING

from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.region.region import Region
    from wsr.report.document import Section
    from wsr.store import Store


PAGE = Page(
    "wsr check",
    "wsr check [CANDIDATE] --store=STORE [options]",
    "Test whether a model shares the base of a population, which regions it lies in, which members it is close to, and "
    "what is unusual about it.",
    ("wsr check made_up_a1-full-s0 --store=runs/mine", "wsr check --store=runs/mine --json"),
    (
        Group("What is checked", (Flag("store", "Folder or URL of the store to compare with.", required=True),)),
        Group(
            "Output",
            (
                Flag("json", "Print the findings as JSON and nothing else.", False),
                Flag("out", "Folder of the page check.html.", value="FOLDER", otherwise="runs/check-STORE"),
            ),
        ),
    ),
    (
        "CANDIDATE is a member of the store, a Hugging Face folder, a LoRA adapter or a hub name. Without CANDIDATE, "
        "every member is compared with all others, and the page names those to leave out of an average.",
    ),
    positional=1,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Checks one model or all members, prints the findings and writes a page."""
    import sys
    from pathlib import Path

    # Progress goes to standard error: it is no JSON.
    with redirect_stdout(sys.stderr) if values.json else nullcontext():
        found, section = _candidate(values, positional[0]) if positional else _everyone(values)
        title = Path(positional[0]).name if positional else "All members"
        page = _write(values, title, section)
    if values.json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        _show(section)
        print(f"page: {page}")


def _candidate(values: Values, wanted: str) -> "tuple[dict, Section]":
    from wsr.cli.command import command_of
    from wsr.exchange.candidate import place
    from wsr.region.check import check_candidate
    from wsr.studies.standing import candidate_section

    store, region = _open(values.store)
    population, at, facts = place(region, wanted)
    checked = check_candidate(population, at, _doubtful(store, region))
    section = candidate_section(checked, population, facts, command_of("check", values, [wanted]))
    return {**checked.to_json(), "notes": list(facts)}, section


def _everyone(values: Values) -> "tuple[dict, Section]":
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
        raise WsrError(
            f"{path} has no members yet, so nothing can be compared with it; add some by wsr train or wsr import"
        )
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


def _write(values: Values, title: str, section: "Section") -> str:
    from pathlib import Path

    from wsr.report.document import Document
    from wsr.report.page import write_page

    out = Path(values.out) if values.out else Path("runs") / f"check-{Path(values.store).stem}"
    out.mkdir(parents=True, exist_ok=True)
    page = out / "check.html"
    write_page(Document(f"{title} in {Path(values.store).name}", (), {"Store": values.store}, (section,)), page)
    return str(page)
