"""Linear probes of many points against scikit-learn's LogisticRegression, a point at a time, at the same optimum.

Also: how long the default takes, which chooses C by cross-validation, beside a probe whose C is given.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import jax
import numpy as np
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from benchmarks.harness import Mark, Result, side_by_side
from benchmarks.matmul_rate import matmul_rate
from wsr.data.load import load_dataset
from wsr.engine.logistic import Fit
from wsr.engine.probe import fit_probe
from wsr.models import load
from wsr.models.features import all_features

POINTS, REPEATS = 64, 3
THEIR_POINTS = 8
"""Points a call of scikit-learn; its times are scaled up to all of them."""


@dataclass(frozen=True)
class Rival:
    """A way to call scikit-learn, on float32 features, which are faster for it than float64."""

    name: str
    threads: int | None
    """Number of BLAS threads; None: the library's own choice."""
    options: dict

    def fit(self, features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
        """Fits one point."""
        with threadpool_limits(self.threads, user_api="blas"):
            return LogisticRegression(**self.options).fit(features, labels)


@dataclass(frozen=True)
class Work:
    """Features of many points and the labels they share."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    classes: int


AS_IT_COMES = Rival("scikit-learn as it comes", None, {})
ONE_THREAD = Rival("scikit-learn, one thread", 1, {})
CONVERGED = Rival("scikit-learn, one thread, tol=1e-5", 1, {"tol": 1e-5, "max_iter": 5000})
NEWTON_CG = Rival("scikit-learn, newton-cg, tol=1e-5", None, {"tol": 1e-5, "solver": "newton-cg"})
CHOSEN = "wsr, C by cross-validation"
NEWTON_CHOLESKY = Rival("scikit-learn, newton-cholesky, one thread", 1, {"solver": "newton-cholesky"})


def run() -> list[Result]:
    """Many texts and classes, which the marks are about, and two classes as in the demo."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn says so where float32 has no more to give
        many = _compare("newsgroups", 1000, (AS_IT_COMES, ONE_THREAD, CONVERGED, NEWTON_CG))
        two = _compare("vader_movie", 300, (AS_IT_COMES, ONE_THREAD, CONVERGED, NEWTON_CHOLESKY))
    return [_marked(many), two]


def _compare(name: str, texts: int, rivals: tuple[Rival, ...]) -> Result:
    work = _work(name, texts)
    on_device = jax.device_put(work.train)

    def ours(inverse_l2: float | None = 1.0) -> Fit:
        return jax.block_until_ready(
            fit_probe(on_device, work.train_labels, classes=work.classes, inverse_l2=inverse_l2)
        )

    def theirs(rival: Rival) -> Callable[[], list[LogisticRegression]]:
        return lambda: [rival.fit(work.train[point], work.train_labels) for point in range(THEIR_POINTS)]

    first_s = _seconds_without_cache(ours)
    contenders: dict[str, Callable[[], object]] = {
        "wsr": ours,
        CHOSEN: lambda: ours(None),
        **{rival.name: theirs(rival) for rival in rivals},
    }
    measured = side_by_side(contenders, repeats=REPEATS)
    seconds = {
        key: [second * (1 if key in ("wsr", CHOSEN) else POINTS / THEIR_POINTS) for second in times]
        for key, times in measured.items()
    }
    heads = {key: np.asarray(leaf, np.float64) for key, leaf in ours().heads.items()}
    own = [_score(work, point, heads["kernel"][point], heads["bias"][point]) for point in range(THEIR_POINTS)]
    mean_loss = np.mean([losses.mean() for losses, _ in own])
    figures: dict[str, float | int | str] = {
        "compiling and the like of the first call, s": first_s - median(seconds["wsr"]),
        "matrix products of the machine, GFLOP/s": matmul_rate() / 1e9,
        "mean test loss, nats": float(mean_loss),
        f"{CHOSEN}: C of the first point": float(ours(None).inverse_l2[0]),
    }
    for rival in rivals:
        scores = [_score(work, point, *_head(model)) for point, model in enumerate(theirs(rival)())]
        apart = [np.abs(their[0] - our[0]) for their, our in zip(scores, own, strict=True)]
        above = [their[1] / our[1] - 1 for their, our in zip(scores, own, strict=True)]
        figures |= {
            f"{rival.name}: test losses apart, mean over texts, share of the mean": float(np.mean(apart) / mean_loss),
            f"{rival.name}: test losses apart, largest, share of the mean": float(np.max(apart) / mean_loss),
            f"{rival.name}: objective above that of wsr, largest, share": float(np.max(above)),
        }
    return Result(
        name=f"probes, {work.classes} classes",
        work=f"{POINTS} points, {work.train.shape[2]} features of MiniLM, {texts} texts of {name}, C=1; scikit-learn "
        f"fits {THEIR_POINTS} of the points a call, its time is scaled up",
        ours="wsr",
        seconds=seconds,
        units=POINTS,
        unit="point",
        figures=figures,
        marks=(Mark("times as long with C by cross-validation", median(_ratios(seconds)), 2.0, at_most=True),),
    )


def _ratios(seconds: dict[str, list[float]]) -> list[float]:
    return [chosen / fixed for chosen, fixed in zip(seconds[CHOSEN], seconds["wsr"], strict=True)]


def _marked(result: Result) -> Result:
    wanted = 5.0
    marks = tuple(
        Mark(f"times as fast as {rival.name}", result.ratio(rival.name), wanted)
        for rival in (AS_IT_COMES, CONVERGED, NEWTON_CG)
    )
    return replace(result, marks=(*marks, *result.marks))


def _work(name: str, texts: int) -> Work:
    """Features of the packaged checkpoint; each point sees them through a linear map of its own, near the identity.

    So the points differ as models of a region do, and keep the bad condition of real features.
    """
    checkpoint = load("minilm")
    sizes = {"probe": texts, "test": texts}
    dataset = load_dataset(name, checkpoint.processor, max_length=32, sizes=sizes)
    generator = np.random.default_rng(0)
    features = [all_features(checkpoint.model, checkpoint.params, dataset.splits[split]) for split in sizes]
    hidden = features[0].shape[1]
    maps = [np.eye(hidden) + 0.3 * generator.normal(size=(hidden, hidden)) / np.sqrt(hidden) for _ in range(POINTS)]
    train, test = (np.stack([own @ one for one in maps]).astype(np.float32) for own in features)
    labels = [dataset.splits[split].labels for split in sizes]
    return Work(train, labels[0], test, labels[1], dataset.classes)


def _head(model: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias with a column for each class."""
    kernel, bias = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
    if kernel.shape[1] == 1:
        return np.hstack([-kernel / 2, kernel / 2]), np.hstack([-bias / 2, bias / 2])
    return kernel, bias


def _score(work: Work, point: int, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns test losses and the objective, in float64."""

    def losses(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        logits = features.astype(np.float64) @ kernel + bias
        return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]

    weights = kernel[:, 1] - kernel[:, 0] if work.classes == 2 else kernel
    fit = losses(work.train[point], work.train_labels).sum()
    return losses(work.test[point], work.test_labels), float(fit + 0.5 * np.square(weights).sum())


def _seconds_without_cache(call: Callable[[], object]) -> float:
    """Time of a first call whose program is not taken from the disk."""
    _use_cache(False)
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    _use_cache(True)
    return seconds


def _use_cache(used: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", used)
    reset_cache()  # JAX looks at the option once
