"""``wsr verify``: everything in a store against its hashes."""

from collections.abc import Sequence

from wsr.cli.flags import Flag, Group, Page, Values

PAGE = Page(
    "wsr verify",
    "wsr verify STORE [options]",
    "Read everything in a store, compare it with its hashes and name what is damaged.",
    ("wsr verify runs/mine", "wsr verify runs/mine --repair"),
    (
        Group(
            "What is verified",
            (
                Flag("store", "Folder or URL of the store.", otherwise="the first word after wsr verify"),
                Flag(
                    "repair",
                    "Move damaged parts to STORE/damaged, where nothing reads them. Nothing is deleted, and the other "
                    "members stay usable.",
                    False,
                ),
            ),
        ),
    ),
    positional=1,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Prints a line for each damaged part; fails if one is left."""
    from wsr.cli.ls import named_store
    from wsr.errors import WsrError
    from wsr.runtime.buckets import folder_of, where_is
    from wsr.runtime.printable import printable
    from wsr.runtime.progress import progress
    from wsr.store import Store
    from wsr.store.verification import damaged_parts, parts_of, set_aside

    where = named_store("verify", values, positional)
    path = folder_of(where)
    if where_is(path) != str(path):
        if values.repair:
            raise WsrError(
                f"--repair works on local folders, and {where} is a URL: delete the damaged parts there, then train or "
                "import them again"
            )
        Store.open(where)  # fetches the list of members; everything else is fetched when it is read
    parts = parts_of(path)
    with progress("verifying", len(parts), "parts") as counter:
        found = damaged_parts(parts, counter)
    for part, problem in found:
        print(printable(f"damaged: {part.name}: {problem}"))
    members = sum(part.name.startswith("member ") for part in parts)
    damaged = {part.name for part, _ in found}
    whole = members - sum(name.startswith("member ") for name in damaged)
    told = f"{whole} of {members} members are whole"
    if not found:
        print(f"{path}: {len(parts)} parts, nothing damaged; {told}")
        return
    if not values.repair:
        raise WsrError(
            f"{path}: {len(found)} of {len(parts)} parts are damaged, {told}; --repair sets the damaged parts aside"
        )
    places = set_aside(path, [part for part, _ in found])
    for place in places:
        print(printable(f"set aside: {place}"))
    for part, _ in found:
        print(printable(f"{part.name}: {part.remedy}"))
    if "base" in damaged:
        remedy = next(part.remedy for part in parts if part.name == "base")
        raise WsrError(f"{path}: the base is damaged, and no member can be used without it; {remedy}; {told}")
    Store.open(path)  # writes store.json where it is missing
    print(f"{path}: {told}; the damaged parts are set aside and are no longer read")
