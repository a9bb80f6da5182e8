"""Trains a population into a store, and says how well each member learned its dataset."""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jaxlib
import numpy as np

from wsr.cores import usable_cores
from wsr.data.dataset import Dataset
from wsr.data.metrics import score
from wsr.errors import WsrError
from wsr.finetune import Finetuned, Job, finetune, groups_of, score_member
from wsr.finetune.memory import chunk_for_training
from wsr.models.model import Model
from wsr.progress import Counter
from wsr.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.store import DTypeOnDisk, MemberRecord, Store
from wsr.store.record import check_name
from wsr.sweep.run import HERE, Run
from wsr.sweep.units import Unit, settled


def member_name(job: Job) -> str:
    """What a member is called: everything in which members of one store usually differ."""
    size = "" if job.size is None else f"-n{job.size}"
    shared = "-shared" if job.shared_streams else ""
    return f"{job.dataset.name}-{job.recipe.mode}{size}{shared}-s{job.seed}"


def train_members(
    model: Model,
    store: Store,
    jobs: Sequence[Job],
    *,
    run: Run = HERE,
    chunk: int | None = None,
    memory_budget_gib: float | None = None,
    dtype: DTypeOnDisk = "float32",
) -> list[MemberRecord]:
    """Trains the jobs whose members the store lacks, saves each when it is done, and returns all their records.

    Members whose factors were trained are stored as factors, the others as ``dtype`` says.

    Args:
      model: the architecture.
      store: where members go; it knows what they start from.
      jobs: the members of the sweep.
      run: where they are trained.
      chunk: members trained together; None: chosen where they are trained, see ``wsr.finetune.memory``.
      memory_budget_gib: of a device; None: most of what it has.
      dtype: how members are kept.

    Raises:
      WsrError: where a member of the same name was made by another recipe or from other data.
      Unfinished: where other processes have members left to train.
    """
    names = [member_name(job) for job in jobs]
    for name in names:
        check_name(name)  # of a file or folder of anybody's
    present = set(store.names())
    for job, name in zip(jobs, names, strict=True):
        if name in present:
            _refuse_other_recipe(store.record(name), job)
    missing = len(set(names) - settled(store))
    if missing < len(jobs):
        print(f"{len(jobs) - missing} of {len(jobs)} members are in the store already", flush=True)
    if missing:
        fitting = partial(_chunk, jobs=jobs, chunk=chunk, memory_budget_gib=memory_budget_gib)
        together = run.ask(fitting, model, store)
        print(f"{len(jobs)} members, {together} at a time on the device", flush=True)
        run.make(training_units(jobs, together, dtype), model, store)
    present = set(store.names())
    return [store.record(name) for name in names if name in present]


def training_units(jobs: Sequence[Job], chunk: int, dtype: DTypeOnDisk = "float32") -> list[Unit]:
    """Returns the units that train ``jobs``, ``chunk`` members together."""
    return [
        Unit(
            tuple(member_name(job) for job in group),
            partial(_train_unit, jobs=group, chunk=chunk, dtype=dtype),
            sum(job.steps for job in group),
        )
        for group in groups_of(jobs, chunk)
    ]


def learned(record: MemberRecord) -> bool:
    """Whether a member did better than chance: two standard errors above the most frequent class of its test split.

    A member that did not learn has a short task vector in no particular direction and belongs to no region. One without
    scores, which others trained, cannot be judged by them and counts as a member; ``wsr check`` looks at its weights.
    """
    if not record.metrics:
        return True
    chance, texts = record.metrics["chance"], record.metrics["test_texts"]
    # Of a share the standard error is that of coin tosses; of a correlation, whose chance is 0, it is 1 / sqrt(texts).
    spread = np.sqrt(chance * (1 - chance)) if chance > 0 else 1.0
    return bool(record.metrics["test_score"] > chance + 2 * spread / np.sqrt(texts))


def learned_region(model: Model, store: Store, records: Sequence[MemberRecord]) -> Region:
    """Returns the region of the members that learned their dataset; says who was left out.

    Raises:
      WsrError: where nobody learned.
    """
    names = [record.name for record in records if learned(record)]
    out = [record.name for record in records if not learned(record)]
    if out:
        print(f"left out, not better than chance: {', '.join(out)}", flush=True)
    if records and not names:
        raise WsrError(
            f"{store.path}: none of {len(records)} members did better than chance; there is no region: train longer or "
            "with more texts"
        )
    return Region.from_store(store, model, names=names)


def members_section(
    records: Sequence[MemberRecord], datasets: Mapping[str, Dataset], *, command: str = ""
) -> tuple[list[dict], Section]:
    """Returns the rows and the section that tell each member's score on its own test split."""
    rows = [
        {
            "study": "members",
            "group": record.dataset,
            "members": [record.name],
            "coefficients": [1.0],
            "dataset": record.dataset,
            "metric": f"own head, {record.hyperparameters['metric']}",
            "value": record.metrics["test_score"],
            "n": int(record.metrics["test_texts"]),
            "how": "exact",
        }
        for record in records
    ]
    flagged = [record.name for record in records if not learned(record)]
    by_family = sorted({(record.family, record.dataset) for record in records})
    chart = []
    for _, dataset in by_family:
        own = [record.metrics["test_score"] for record in records if record.dataset == dataset]
        chance = next(record.metrics["chance"] for record in records if record.dataset == dataset)
        chart.append(
            {
                "name": dataset,
                "series": [
                    {"name": "members", "mean": float(np.mean(own)), "values": own},
                    {"name": "most frequent class", "mean": chance},
                ],
            }
        )
    table = Table(
        "Members",
        ("member", "dataset", "family", "seed", "examples", "score", "chance", "learned"),
        tuple(
            (
                record.name,
                record.dataset,
                record.family,
                record.seed,
                record.size,
                record.metrics["test_score"],
                record.metrics["chance"],
                "yes" if learned(record) else "no",
            )
            for record in records
        ),
        "Chance: the share of the most frequent class of the test split (0 for a correlation).",
    )
    left_out = Table(
        "What was left out of the data",
        ("dataset", "what"),
        tuple((dataset.name, note) for dataset in datasets.values() for note in dataset.notes),
    )
    mean = float(np.mean([record.metrics["test_score"] for record in records]))
    flags = f"left out of everything that follows: {', '.join(flagged)}" if flagged else "all of them learned"
    section = Section(
        "The members",
        "Did each member learn its dataset?",
        "RoBERTa-base, full data: MNLI 86.98, RTE 72.40, SST2 94.12, CoLA 83.53, mean over 36 datasets 76.22. Other "
        "models and datasets: not to be compared number by number.",
        f"mean score {100 * mean:.1f} over {len(records)} members; {flags}",
        "holds" if not flagged else "partly",
        figures=(
            Figure(
                "intervals",
                "Score of each member on its own test split",
                "One dot a seed; with its own head, on texts it has not seen.",
                {"rows": chart, "x_label": "score on the test split"},
            ),
        ),
        tables=(table, left_out),
        command=command,
    )
    return rows, section


def _record(model: Model, member: Finetuned) -> MemberRecord:
    job = member.job
    recipe = job.recipe.settings
    return MemberRecord(
        name=member_name(job),
        dataset=job.dataset.name,
        family=job.dataset.family,
        seed=job.seed,
        mode=job.recipe.mode,
        size=len(job.split),
        hyperparameters=recipe | {"metric": job.dataset.metric, "data_sha256": job.dataset.content_hash},
        metrics=_metrics(model, member),
        jaxlib=jaxlib.__version__,
        device_kind=jax.devices()[0].device_kind,
        threads=usable_cores(),
        group_size=member.group_size,
    )


def _chunk(
    model: Model, store: Store, *, jobs: Sequence[Job], chunk: int | None, memory_budget_gib: float | None
) -> int:
    return chunk_for_training(model, store.base(), jobs, chunk=chunk, memory_budget_gib=memory_budget_gib)


def _train_unit(
    model: Model, store: Store, counter: Counter | None, *, jobs: Sequence[Job], chunk: int, dtype: DTypeOnDisk
) -> None:
    for member in finetune(model, store.base(), jobs, chunk=chunk, counter=counter):
        record = _record(model, member)
        if member.failed_step is None:
            _save(store, record, member, dtype)
            continue
        store.quarantine(record, member.failed_step, "the loss or a gradient became infinite or not a number")
        print(f"quarantined {record.name}: non-finite at step {member.failed_step}", flush=True)


def _save(store: Store, record: MemberRecord, member: Finetuned, dtype: DTypeOnDisk) -> None:
    try:
        if member.low_rank is None:
            store.save(record, member.params, member.head, dtype=dtype)
        else:
            store.save_low_rank(record, member.low_rank, member.head)
    except WsrError:
        if record.name not in store:
            raise
        there = store.record(record.name)
        _refuse_other_recipe(there, member.job)
        if _made_where(there) == _made_where(record):  # the same seed there must give the same bits
            raise
        # Made twice in two places, whose roundings differ: the first to be there stays.
        print(f"kept the {record.name} that is in the store, made elsewhere ({_made_where(there)})", flush=True)


def _made_where(record: MemberRecord) -> str:
    """All that bits depend on, beside the recipe and the seed."""
    return (
        f"jaxlib {record.jaxlib}, {record.device_kind}, {record.threads} threads, {record.group_size} members together"
    )


def _metrics(model: Model, member: Finetuned) -> dict[str, float]:
    dataset, failed = member.job.dataset, member.failed_step is not None
    labels = dataset.splits["test"].labels
    own = float("nan") if failed else score_member(model, member.params, member.head, dataset, "test")
    return {
        "test_score": own,
        "chance": _chance(dataset),
        "test_texts": float(len(labels)),
        "steps": float(len(member.losses)),
        "last_training_loss": float(member.losses[-1]),
    }


def _chance(dataset: Dataset) -> float:
    """What a model scores that always answers the same."""
    if dataset.regression:
        return 0.0
    labels = dataset.splits["test"].labels
    return score(dataset.metric, labels, np.full(len(labels), np.bincount(labels).argmax()))


def _refuse_other_recipe(record: MemberRecord, job: Job) -> None:
    wanted: Mapping[str, object] = job.recipe.settings | {"data_sha256": job.dataset.content_hash}
    differing = [
        f"{name} is {record.hyperparameters.get(name)!r} there and {value!r} here"
        for name, value in wanted.items()
        if record.hyperparameters.get(name) != value
    ]
    if differing:
        raise WsrError(
            f"member {record.name!r} of the store was made otherwise: {'; '.join(differing)}; use another store"
        )
