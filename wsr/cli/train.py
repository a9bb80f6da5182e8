"""``wsr train``: members of a population, fine-tuned into a store."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from wsr.cli import dataset_flags, run_flags
from wsr.cli.device_flags import memory_flags
from wsr.cli.flags import Flag, Group, Page, Values
from wsr.training.recipe import MODES, Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsr.store import MemberRecord, Store
    from wsr.training import Job

MOST_MEMBERS = 1_000_000
"""Largest number of members that one command trains."""
PAGE = Page(
    "wsr train",
    "wsr train --store=STORE --datasets=DATASET,... [options]",
    "Fine-tune members from one checkpoint, one for each dataset and seed, and keep them in a store.",
    (
        "wsr train --store=runs/mine --base=tiny --datasets=made_up_a1,made_up_b1 --seeds=3 --epochs=6 "
        "--learning_rate=0.01 --max_length=48",
        "wsr train --store=runs/reviews --base=tiny --datasets=reviews.csv --text_column=review --label_column=stars "
        "--seeds=1 --epochs=2 --max_length=48",
    ),
    (
        Group(
            "What is trained",
            (
                Flag("store", "Folder or URL of the store, which is created if needed.", required=True),
                Flag(
                    "datasets",
                    "Datasets to fine-tune on: names, files, folders or hub names.",
                    (),
                    value="DATASET,...",
                    required=True,
                ),
                Flag(
                    "base",
                    "Checkpoint from which all members start: a name, a Hugging Face folder or a hub name.",
                    "minilm",
                ),
                Flag("seeds", "Number of members per dataset.", 3, at_least=1),
                Flag("first_seed", "Seed of the first member; the others follow it.", 0, at_least=0),
                Flag(
                    "size",
                    "Number of fine-tuning examples per member, drawn by the member's seed.",
                    kind=int,
                    at_least=1,
                    otherwise="all examples",
                ),
                Flag(
                    "pooling",
                    "Pooling of the last hidden states.",
                    accepts="mean, cls, last, max, mean_sqrt or weighted_mean",
                    otherwise="the checkpoint's own",
                ),
            ),
        ),
        Group(
            "Recipe",
            (
                Flag(
                    "mode",
                    "Which parameters are trained, next to the head: full trains all, bitfit the biases, lora low-rank "
                    "factors, head none.",
                    Recipe.mode,
                    allowed=MODES,
                ),
                Flag("learning_rate", "Highest learning rate.", Recipe.learning_rate, at_least=0.0),
                Flag(
                    "head_learning_rate",
                    "Highest learning rate of the head.",
                    kind=float,
                    otherwise="that of the encoder",
                ),
                Flag("batch_size", "Number of texts per step.", Recipe.batch_size, at_least=1),
                Flag("epochs", "Number of passes over the examples.", Recipe.epochs, at_least=0.0),
                Flag("weight_decay", "Weight decay of AdamW.", Recipe.weight_decay, at_least=0.0),
                Flag("warmup", "Fraction of the steps during which the learning rate rises.", Recipe.warmup),
                Flag("dropout", "Apply the dropout rates of the architecture.", Recipe.dropout),
                Flag(
                    "dropout_rng",
                    "Generator of dropout's random bits; rbg is faster on TPUs and draws other bits on other chips.",
                    Recipe.dropout_rng,
                    allowed=("threefry", "rbg"),
                ),
                Flag(
                    "precision",
                    "Precision of the encoder's matrix products; bfloat16 is faster on chips that have it.",
                    Recipe.precision,
                    allowed=("float32", "bfloat16"),
                ),
                Flag(
                    "patience",
                    "Number of checks on the validation split without improvement after which a member stops.",
                    kind=int,
                    otherwise="no early stopping",
                ),
                Flag(
                    "stop_on",
                    "What is checked: the loss, or the score in the dataset's own metric.",
                    Recipe.stop_on,
                    allowed=("loss", "score"),
                ),
                Flag("check_every", "Number of steps between two checks.", Recipe.check_every, at_least=1),
                Flag("lora_rank", "Rank of the factors in mode lora.", Recipe.lora_rank, at_least=1),
                Flag(
                    "lora_alpha",
                    "Scale of the factors in mode lora: their product is multiplied by alpha / rank.",
                    Recipe.lora_alpha,
                ),
                Flag(
                    "lora_targets",
                    "Regular expression for the paths of the matrices that have factors in mode lora.",
                    Recipe.lora_targets,
                    value="REGEX",
                ),
            ),
        ),
        dataset_flags.GROUP,
        Group("Device and memory", memory_flags("members")),
        run_flags.GROUP,
        Group(
            "Output",
            (
                Flag(
                    "keep",
                    "Format in which members are stored. Members of mode lora are stored as factors.",
                    "float32",
                    allowed=("float32", "bfloat16_task_vector"),
                ),
            ),
        ),
    ),
    ("Members that are in the store already are not trained again.",),
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Trains the missing members and lists the population; a share ends with a line about the other shares."""
    from dataclasses import replace

    from wsr.cli import ls
    from wsr.data.names import spoken_names
    from wsr.errors import WsrError
    from wsr.models import load
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.store import Store
    from wsr.training import Job, Recipe
    from wsr.training.members import train_members
    from wsr.training.sweep.run import Unfinished
    from wsr.training.trainable import partition

    run = run_flags.run_of(values)
    use_persistent_cache()
    checkpoint = load(values.base, pooling=values.pooling)
    spoken = spoken_names(values.datasets)
    datasets = [
        dataset_flags.load(values, given, checkpoint.processor, spoken=name)
        for given, name in zip(values.datasets, spoken, strict=True)
    ]
    recipe = Recipe(
        mode=values.mode,
        learning_rate=values.learning_rate,
        head_learning_rate=values.head_learning_rate,
        batch_size=values.batch_size,
        epochs=values.epochs,
        weight_decay=values.weight_decay,
        warmup=values.warmup,
        dropout=values.dropout,
        dropout_rng=values.dropout_rng,
        precision=values.precision,
        patience=values.patience,
        stop_on=values.stop_on,
        check_every=values.check_every,
        lora_rank=values.lora_rank,
        lora_alpha=values.lora_alpha,
        lora_targets=values.lora_targets,
    )
    if len(datasets) * values.seeds > MOST_MEMBERS:
        raise WsrError(
            f"--seeds={values.seeds:,}: {len(datasets) * values.seeds:,} members; expected at most {MOST_MEMBERS:,}"
        )
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    for dataset in datasets[:1]:
        # A recipe that does not fit the model leaves no store behind.
        partition(checkpoint.params, Job(dataset, values.first_seed, recipe, values.size))
    store = Store.create_for(values.store, checkpoint)
    records = _readable(store)
    datasets = [
        replace(dataset, name=dataset_flags.spoken_apart(dataset, given, records))
        for dataset, given in zip(datasets, values.datasets, strict=True)
    ]
    jobs = [Job(dataset, seed, recipe, values.size) for dataset in datasets for seed in seeds]
    try:
        train_members(
            checkpoint.model,
            store,
            jobs,
            run=run,
            chunk=values.chunk,
            memory_budget_gib=values.memory_budget_gib,
            dtype=values.keep,
        )
    except Unfinished as unfinished:
        print(unfinished)
        return
    ls.show(store)
    _tell_kept(store, {record.name: record for record in records}, jobs, values.keep)


def _tell_kept(store: "Store", records: "Mapping[str, MemberRecord]", jobs: "Sequence[Job]", keep: str) -> None:
    """Says which members stay as they are in the store, although the flags ask for another family or format."""
    from wsr.training.members import member_name

    for job in jobs:
        record = records.get(member_name(job))
        if record is None:
            continue
        if record.family != job.dataset.family:
            print(f"{record.name} stays in the family {record.family}, not {job.dataset.family}", flush=True)
        kept = store.kept_as(record.name)[0]
        if kept != keep and job.recipe.mode != "lora":
            print(f"{record.name} stays stored as {kept}, not {keep}", flush=True)


def _readable(store: "Store") -> "list[MemberRecord]":
    """The records of the members that are not damaged; ``wsr ls`` tells of the others."""
    from wsr.errors import WsrError

    found = []
    for name in store.names():
        with suppress(WsrError):
            found.append(store.record(name))
    return found
