"""Exact evaluation of points between five members against what people use today, on the same work.

Every contender gets the same members, coefficients and texts, fits a probe to the same optimum and returns the loss of
each test text; mean losses must agree within 1e-3 or the benchmark fails. On a CPU the model is MiniLM, on an
accelerator it is MiniLM and the shape of RoBERTa-base, in bfloat16.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from benchmarks.harness import Mark, Result, side_by_side
from benchmarks.matmul_rate import matmul_work
from wsr.data.dataset import Dataset, Split
from wsr.data.load import load_dataset
from wsr.engine.evaluate import Protocol, evaluate
from wsr.engine.settings import Precision, Settings
from wsr.geometry.sampling import convex_hull
from wsr.models import Checkpoint, build, load
from wsr.models.model import Model
from wsr.region.region import Region, from_params
from wsr.runtime import seeds
from wsr.types import Params

MEMBERS, REPEATS = 5, 4
LOSS_TOLERANCE = 1e-3
CEILING = "matrix products"
AS_THE_RIVALS = Protocol(inverse_l2=1.0)
"""Nobody else chooses C by cross-validation."""
ROBERTA_BASE: Mapping[str, Any] = {
    "vocab_size": 50265,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
    "pooling": "mean",
}

Contenders = Mapping[str, Callable[[], Any]]


def run() -> list[Result]:
    """Needs PyTorch."""
    minilm = load("minilm")
    if jax.default_backend() == "cpu":
        return _on_cpu(minilm)
    model = build("roberta", {**minilm.model.config, **ROBERTA_BASE})
    roberta = Checkpoint(model, model.init(jax.random.key(0)), minilm.processor)
    return [
        _on_accelerator("RoBERTa-base shape", roberta, times=1.5, share=0.5),
        _on_accelerator("MiniLM", minilm, times=3.0, share=None),
    ]


def _on_cpu(checkpoint: Checkpoint) -> list[Result]:
    """Compares in one run: float32 with all rivals, and bfloat16 with theirs and with our own float32."""
    from benchmarks.torch_rivals import Rivals

    members = perturbed(checkpoint.params, MEMBERS)
    dataset = load_dataset("vader_movie", checkpoint.processor, max_length=64, sizes={"probe": 300, "test": 300})
    coefficients = convex_hull(seeds.generator(0, "points", "benchmark"), 4, MEMBERS)
    rivals = Rivals(checkpoint, members)
    region = _region(checkpoint, members)
    contenders: Contenders = {
        "wsr": partial(_ours, region, coefficients, dataset, "float32"),
        "wsr bf16": partial(_ours, region, coefficients, dataset, "bfloat16"),
        "resident fp32": partial(rivals.resident, coefficients, dataset),
        "resident bf16": partial(rivals.resident, coefficients, dataset, bfloat16=True),
        "reload": partial(rivals.reload, coefficients, dataset),
        "disk": partial(rivals.disk, coefficients, dataset),
    }
    result, share = _measured(checkpoint.model, contenders, dataset, len(coefficients), "float32")
    marks = (
        Mark("times as fast as resident fp32", result.ratio("resident fp32"), 1.2),
        Mark("share of the matrix-product rate, real tokens only", share, 0.7),
    )
    work = f"MiniLM, K = {MEMBERS}, {len(coefficients)} points, vader_movie: 300 probe and 300 test texts, linear probe"
    half = ("wsr bf16", "wsr", "resident bf16")
    in_bfloat16 = replace(
        result,
        name="exact evaluation, bf16",
        work=work,
        ours="wsr bf16",
        seconds={name: result.seconds[name] for name in half},
        figures={name: value for name, value in result.figures.items() if name.endswith("bf16")},
    )
    marks_in_bfloat16 = (
        Mark("times as fast as resident bf16", in_bfloat16.ratio("resident bf16"), 1.3),
        Mark("times as fast as our fp32", in_bfloat16.ratio("wsr"), 1.6),
    )
    return [
        replace(result, name="exact evaluation, fp32", work=work, marks=marks),
        replace(in_bfloat16, marks=marks_in_bfloat16),
    ]


def _on_accelerator(name: str, checkpoint: Checkpoint, *, times: float, share: float | None) -> Result:
    from benchmarks.torch_rivals import Rivals

    members = perturbed(checkpoint.params, MEMBERS)
    sizes = {"probe": 800, "test": 3000}
    dataset = load_dataset("newsgroups_rec_sci", checkpoint.processor, max_length=64, sizes=sizes)
    coefficients = convex_hull(seeds.generator(0, "points", "benchmark"), 64, MEMBERS)
    eager = Rivals(checkpoint, members, device="cuda")
    compiled = Rivals(checkpoint, members, device="cuda", compiled=True)
    region = _region(checkpoint, members)
    contenders: Contenders = {
        "wsr bf16": partial(_ours, region, coefficients, dataset, "bfloat16"),
        "wsr fp32": partial(_ours, region, coefficients, dataset, "float32"),
        "resident bf16, torch.compile, SDPA": partial(compiled.resident, coefficients, dataset, bfloat16=True),
        "resident bf16, SDPA": partial(eager.resident, coefficients, dataset, bfloat16=True),
        "resident fp32, SDPA": partial(eager.resident, coefficients, dataset),
    }
    result, reached = _measured(checkpoint.model, contenders, dataset, len(coefficients), "bfloat16")
    rival = "resident bf16, torch.compile, SDPA"
    marks = [Mark(f"times as fast as {rival}", result.ratio(rival), times)]
    if share is not None:
        marks.append(Mark("share of the bf16 matrix-product rate, real tokens only", reached, share))
    work = f"{name}, K = {MEMBERS}, {len(coefficients)} points, newsgroups_rec_sci: {sizes}, linear probe"
    return replace(result, name=f"exact evaluation, {name}, bf16", work=work, marks=tuple(marks))


def _measured(model: Model, contenders: Contenders, dataset: Dataset, points: int, dtype: str) -> tuple[Result, float]:
    """Returns the timings, and our share of the machine's rate of matrix products."""
    ours = next(iter(contenders))
    differences = _check_losses(contenders)
    # The ceiling takes its turn with the others: the machine is as fast for it as it is for them.
    multiply, multiplied = matmul_work(dtype)
    multiply()
    seconds = side_by_side({**contenders, CEILING: multiply}, repeats=REPEATS, warm_up=False)
    rates = [multiplied / each for each in seconds.pop(CEILING)]
    operations = points * sum(useful_operations(model, dataset.texts(split)) for split in ("probe", "test"))
    reached = [operations / each for each in seconds[ours]]
    shares = [own / rate for own, rate in zip(reached, rates, strict=True)]
    figures: dict[str, float | int | str] = {
        **{f"largest difference of a mean loss, {name}": value for name, value in differences.items()},
        f"{dtype} matrix products, GFLOP/s": median(rates) / 1e9,
        "wsr on real tokens, GFLOP/s": median(reached) / 1e9,
        "real tokens a point": int(sum(dataset.splits[split].lengths.sum() for split in ("probe", "test"))),
    }
    return Result("", "", ours, seconds, units=points, unit="point", figures=figures), median(shares)


def perturbed(params: Params, members: int) -> list[Params]:
    """Returns random neighbours of a checkpoint, about as far from it as fine-tuned models are."""
    generator = seeds.generator(0, "members", "benchmark")

    def moved(leaf: jax.Array) -> np.ndarray:
        values = np.asarray(leaf, np.float32)
        return values + (0.007 * values.std() * generator.standard_normal(values.shape)).astype(np.float32)

    return [jax.tree.map(moved, params) for _ in range(members)]


def useful_operations(model: Model, split: Split) -> float:
    """Floating-point operations of a transformer encoder's matrix products on real tokens: no padding, no probe."""
    hidden, wide, layers = model.hidden, model.config["intermediate_size"], model.config["num_hidden_layers"]
    lengths = split.lengths.astype(np.float64)
    products = 2 * (4 * hidden * hidden + 2 * hidden * wide) * lengths.sum()
    attention = 4 * hidden * np.square(lengths).sum()
    return float(layers * (products + attention))


def _region(checkpoint: Checkpoint, members: list[Params]) -> Region:
    named = {f"member {number}": params for number, params in enumerate(members)}
    return from_params(checkpoint.model, checkpoint.params, named)


def _ours(
    region: Region, coefficients: Float[np.ndarray, "points members"], dataset: Dataset, precision: Precision
) -> Float[np.ndarray, "points texts"]:
    settings = Settings(precision=precision)
    return evaluate(region, coefficients, dataset, protocol=AS_THE_RIVALS, settings=settings).losses


def _check_losses(contenders: Contenders) -> dict[str, float]:
    """Calls every contender once, which compiles what it compiles, and compares the mean losses of those in float32."""
    means = {name: np.asarray(call()).mean(axis=1) for name, call in contenders.items()}
    reference = next(name for name in contenders if "bf16" not in name)
    differences = {
        name: float(np.abs(mean - means[reference]).max()) for name, mean in means.items() if name != reference
    }
    for name, difference in differences.items():
        # bfloat16 is another computation: its difference is shown, and not required to be small.
        if "bf16" not in name and difference > LOSS_TOLERANCE:
            raise SystemExit(f"evaluation: {name} and {reference} differ by {difference:.2g} in a mean loss")
    return differences
