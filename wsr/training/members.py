"""Trains a population into a store, and scores each member on the test split of its dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial

import jax
import jaxlib
import numpy as np

from wsr.data.dataset import Dataset, differences
from wsr.data.metrics import score
from wsr.errors import WsrError
from wsr.models.model import Model
from wsr.runtime.cores import usable_cores
from wsr.runtime.progress import Counter
from wsr.store import DTypeOnDisk, MemberRecord, Store
from wsr.store.record import check_name
from wsr.training.division import WHOLE, Division
from wsr.training.job import Job
from wsr.training.memory import chunk_for_training, division_for_training
from wsr.training.population import Finetuned, finetune, groups_of, score_member
from wsr.training.recipe import Recipe
from wsr.training.sweep.run import HERE, Run
from wsr.training.sweep.units import Unit, settled


def member_name(job: Job) -> str:
    """Returns the name of a job's member in a store: dataset, mode, size, streams and seed."""
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
    """Trains the members that a store lacks, and saves each of them as soon as it is trained.

    Rerun it after an interruption: it resumes from what is in the store. A member whose loss or gradient becomes
    non-finite is quarantined.

    Args:
      model: the architecture.
      store: receives the members; its base is where they start.
      jobs: all members of the sweep, including those that the store has.
      run: trains them in this process (the default), as a share of the sweep, or on Ray.
      chunk: number of members trained together; None: as many as the device wants and fit its memory.
      memory_budget_gib: memory to use on the device, in GiB; None: most of it.
      dtype: dtype of the members on disk. Members of mode "lora" are stored as float32 factors instead.

    Returns:
      The records of all jobs' members in the store, in the order of ``jobs``.

    Raises:
      WsrError: the store has a member of the same name with another recipe or other data.
      Unfinished: other processes still have members to train.

    Example:
      >>> import tempfile, wsr
      >>> base = wsr.load("tiny")
      >>> data = wsr.load_dataset("made_up_a1", base.processor, max_length=48)
      >>> store = wsr.Store.create_for(tempfile.mkdtemp() + "/store", base)
      >>> jobs = [wsr.Job(data, seed, wsr.Recipe(epochs=1, batch_size=32), size=64) for seed in (0, 1)]
      >>> records = wsr.train(base.model, store, jobs, chunk=2)
      2 members, 2 at a time on the device
      ...
      >>> [record.name for record in records]
      ['made_up_a1-full-n64-s0', 'made_up_a1-full-n64-s1']
    """
    names = [member_name(job) for job in jobs]
    for name in names:
        check_name(name)  # a dataset's name may come from a file or folder
    present = set(store.names())
    for job, name in zip(jobs, names, strict=True):
        if name in present:
            _refuse_other_recipe(store.record(name), job)
    missing = len(set(names) - settled(store))
    if missing < len(jobs):
        print(f"{len(jobs) - missing} of {len(jobs)} members are in the store already", flush=True)
    if missing:
        fitting = partial(_fitting, jobs=jobs, chunk=chunk, memory_budget_gib=memory_budget_gib)
        together, division = run.ask(fitting, model, store)
        how = "" if division == WHOLE else f", {division} to fit the memory"
        print(f"{len(jobs)} members, {together} at a time on the device{how}", flush=True)
        run.make(training_units(jobs, together, dtype, division), model, store)
    present = set(store.names())
    return [store.record(name) for name in names if name in present]


def training_units(
    jobs: Sequence[Job], chunk: int, dtype: DTypeOnDisk = "float32", division: Division = WHOLE
) -> list[Unit]:
    """Returns the units of work that train ``jobs``, with at most ``chunk`` members in each."""
    return [
        Unit(
            tuple(member_name(job) for job in group),
            partial(_train_unit, jobs=group, chunk=chunk, division=division, dtype=dtype),
            sum(job.steps for job in group),
        )
        for group in groups_of(jobs, chunk)
    ]


def chance_of(dataset: Dataset, split: str = "test") -> float:
    """Returns the score of a constant prediction on a split: that of the most frequent class, 0 for regression.

    Args:
      dataset: the dataset; its ``metric`` is the score.
      split: name of the split.
    """
    if dataset.regression:
        return 0.0
    labels = dataset.splits[split].labels
    return score(dataset.metric, labels, np.full(len(labels), np.bincount(labels).argmax()))


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
        data=job.dataset.about(job.split),
        **asdict(member.division),
    )


def _fitting(
    model: Model, store: Store, *, jobs: Sequence[Job], chunk: int | None, memory_budget_gib: float | None
) -> tuple[int, Division]:
    """Returns how many members are trained together, and how their training is divided."""
    start = store.base()
    division = division_for_training(model, start, jobs, memory_budget_gib=memory_budget_gib)
    together = chunk_for_training(
        model, start, jobs, chunk=chunk, division=division, memory_budget_gib=memory_budget_gib
    )
    return together, division


def _train_unit(
    model: Model,
    store: Store,
    counter: Counter | None,
    *,
    jobs: Sequence[Job],
    chunk: int,
    division: Division,
    dtype: DTypeOnDisk,
) -> None:
    for member in finetune(model, store.base(), jobs, chunk=chunk, division=division, counter=counter):
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
        if _made_where(there) == _made_where(record):  # equal seeds must give equal bits on equal machines
            raise
        # Two machines, whose rounding differs, trained the same member: the first one stays.
        print(f"kept the {record.name} that is in the store, made elsewhere ({_made_where(there)})", flush=True)


def _made_where(record: MemberRecord) -> str:
    """Returns everything that a member's bits depend on besides its recipe and seed."""
    division = Division(record.pieces, record.rematerialised, record.shared_by)
    how = "" if division == WHOLE else f", {division}"
    return (
        f"jaxlib {record.jaxlib}, {record.device_kind}, {record.threads} threads, {record.group_size} members "
        f"together{how}"
    )


def _metrics(model: Model, member: Finetuned) -> dict[str, float]:
    dataset, failed = member.job.dataset, member.failed_step is not None
    labels = dataset.splits["test"].labels
    own = float("nan") if failed else score_member(model, member.params, member.head, dataset, "test")
    return {
        "test_score": own,
        "chance": chance_of(dataset),
        "test_texts": float(len(labels)),
        "steps": float(len(member.losses)),
        "last_training_loss": float(member.losses[-1]),
    }


def _refuse_other_recipe(record: MemberRecord, job: Job) -> None:
    in_words = differences(record.data, job.dataset.about(job.split))
    data = {} if in_words else {"data_sha256": job.dataset.content_hash}
    defaults = {one.name: one.default for one in fields(Recipe)}  # settings lack fields that do not matter
    wanted: Mapping[str, object] = defaults | job.recipe.settings | data
    found = defaults | dict(record.hyperparameters)
    differing = [
        f"{name} is {found.get(name)!r} in the store and {value!r} here"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differing or in_words:
        told = "; ".join([*differing, *in_words])
        raise WsrError(f"member {record.name!r} of the store was trained differently: {told}; use another store")
