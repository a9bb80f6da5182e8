"""reads everything in a store and compares it with its hashes. --repair moves what is damaged to STORE/damaged, where
nothing reads it, and deletes nothing: the other members stay usable, and what can be worked out again will be."""

from collections.abc import Sequence

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_string("store", None, "The store, a folder or a URL; also: wsr verify STORE.", flag_values=values)
    flags.DEFINE_bool("repair", False, "Set aside what is damaged.", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Prints a line for each damaged part; fails where there is one that was not set right."""
    from wsr.cli.checks import refuse_positional, required
    from wsr.errors import WsrError
    from wsr.runtime.buckets import folder_of, where_is
    from wsr.runtime.printable import printable
    from wsr.runtime.progress import progress
    from wsr.store import Store
    from wsr.store.verification import damaged_parts, parts_of, set_aside

    where = values.store or (positional[0] if positional else None)
    refuse_positional(positional if values.store else positional[1:])
    required("--store", where)
    path = folder_of(str(where))
    if where_is(path) != str(path):
        if values.repair:
            raise WsrError(
                f"--repair is for a folder, not for {where}: remove there what is damaged, and train it again"
            )
        Store.open(str(where))  # brings what says which members there are; the rest is brought when it is read
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
        raise WsrError(f"{path}: {len(found)} of {len(parts)} parts are damaged, {told}; --repair sets them aside")
    places = set_aside(path, [part for part, _ in found])
    for place in places:
        print(printable(f"set aside: {place}"))
    for part, _ in found:
        print(printable(f"{part.name}: {part.remedy}"))
    if "base" in damaged:
        remedy = next(part.remedy for part in parts if part.name == "base")
        raise WsrError(f"{path}: the base is damaged, and no member can be used without it; {remedy}; {told}")
    Store.open(path)  # writes store.json where it is missing
    print(f"{path}: {told}, and nothing that is damaged is read any more")
