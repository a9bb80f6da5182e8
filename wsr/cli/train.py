"""fine-tunes members of a population into a store, one for each dataset and seed. Members that are there already are
not trained again."""

from collections.abc import Sequence

from absl import flags

from wsr.cli import dataset_flags, device_flags, run_flags


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    dataset_flags.define(values)
    text, number, real = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_float
    text("store", None, "Where the members go; created if it is not there.", flag_values=values)
    text("base", "minilm", "Checkpoint all start from: a name, a Hugging Face folder or hub name.", flag_values=values)
    text("pooling", None, "mean, cls or last; by default the checkpoint's own.", flag_values=values)
    flags.DEFINE_list("datasets", [], "Names, files, folders or hub names, comma-separated.", flag_values=values)
    number("seeds", 3, "Members of each dataset.", lower_bound=1, flag_values=values)
    number("first_seed", 0, "Seed of the first of them.", lower_bound=0, flag_values=values)
    number("size", None, "Fine-tuning examples, drawn by the seed; all by default.", lower_bound=1, flag_values=values)
    flags.DEFINE_enum("mode", "full", ["full", "bitfit", "lora", "head"], "What is trained.", flag_values=values)
    number("lora_rank", 8, "Mode lora: rank of what a matrix moves by.", lower_bound=1, flag_values=values)
    real("lora_alpha", 16.0, "Mode lora: the product of the factors is scaled by alpha / rank.", flag_values=values)
    text(
        "lora_targets",
        r".*/(query|value|query_key_value)/kernel",
        "Mode lora: paths of the matrices that move, a regular expression.",
        flag_values=values,
    )
    real("learning_rate", 5e-5, "Peak learning rate.", lower_bound=0.0, flag_values=values)
    real("head_learning_rate", None, "Of the head; by default that of the encoder.", flag_values=values)
    number("batch_size", 32, "Texts a step.", lower_bound=1, flag_values=values)
    real("epochs", 3.0, "Passes over the data.", lower_bound=0.0, flag_values=values)
    real("weight_decay", 0.01, "AdamW's.", lower_bound=0.0, flag_values=values)
    real("warmup", 0.06, "Part of the steps with a rising learning rate.", flag_values=values)
    flags.DEFINE_bool("dropout", True, "Apply the architecture's dropout rates.", flag_values=values)
    number("patience", None, "Early stopping: checks of the validation loss without gain.", flag_values=values)
    number("check_every", 50, "Steps between two checks.", lower_bound=1, flag_values=values)
    device_flags.define(values, "Members")
    run_flags.define(values)
    flags.DEFINE_enum(
        "keep",
        "float32",
        ["float32", "bfloat16_task_vector"],
        "How members are stored; of mode lora always as factors.",
        flag_values=values,
    )


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Trains what is missing and lists the population; a share of it ends with a line of what others have to do."""
    from wsr.cli import ls
    from wsr.cli.checks import refuse_positional, required
    from wsr.models import load
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.store import Store
    from wsr.training import Job, Recipe
    from wsr.training.members import train_members
    from wsr.training.sweep.run import Unfinished
    from wsr.training.trainable import partition

    refuse_positional(positional)
    required("--store", values.store)
    required("--datasets", values.datasets)
    run = run_flags.run_of(values)
    use_persistent_cache()
    checkpoint = load(values.base, pooling=values.pooling)
    datasets = [dataset_flags.load(values, name, checkpoint.processor) for name in values.datasets]
    recipe = Recipe(
        mode=values.mode,
        learning_rate=values.learning_rate,
        head_learning_rate=values.head_learning_rate,
        batch_size=values.batch_size,
        epochs=values.epochs,
        weight_decay=values.weight_decay,
        warmup=values.warmup,
        dropout=values.dropout,
        patience=values.patience,
        check_every=values.check_every,
        lora_rank=values.lora_rank,
        lora_alpha=values.lora_alpha,
        lora_targets=values.lora_targets,
    )
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    jobs = [Job(dataset, seed, recipe, values.size) for dataset in datasets for seed in seeds]
    for job in jobs[:1]:
        partition(checkpoint.params, job)  # a recipe that does not fit the model leaves no store behind
    store = Store.create_for(values.store, checkpoint)
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
