"""Evaluation of vision towers without a probe: the text tower makes a fixed head of the names of the classes.

A class is the mean of the unit embeddings of its prompts, such as "a photo of a cat.", scaled to unit length. The
logits of an image are the cosines of its embedding with the classes, times ``exp(logit_scale)`` (Radford et al. 2021,
section 3.1.4). SigLIP adds ``logit_bias``, and its loss takes each class by itself, with a sigmoid (Zhai et al. 2023,
section 3). Points combine vision towers and their projection; the text tower is the base's, so the head is the same for
all points, and nothing is fitted.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from wsr.data.dataset import Dataset
from wsr.data.metrics import score
from wsr.data.tokenise import hash_tokenizer, tokenise
from wsr.engine.evaluate import EXACT
from wsr.engine.scoring import key_of, score_points
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.linear_head import losses as losses_of
from wsr.geometry.linear_head import matmul
from wsr.geometry.trees import flatten
from wsr.models.clip import PROJECTION
from wsr.models.features import all_features
from wsr.models.huggingface.part import read_part
from wsr.models.model import Checkpoint, Model
from wsr.models.registry import build
from wsr.models.siglip_vision import ATTENTION
from wsr.region.region import Region
from wsr.store.row import Row, rows_of_points
from wsr.types import AnyArray, Batch, Head, Params

if TYPE_CHECKING:
    import pandas

LOSS = "zero_shot_loss"
TEMPLATES = ("a photo of a {}.",)
"""The prompt of a class, by default that of CLIP's paper."""
_OF_TEXT_TOWER = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
_TOWERS = {"clip_vision": ("clip_text", "CLIP"), "siglip_vision": ("siglip_text", "SigLIP")}
"""The text tower that belongs to a vision tower, and what both are called together."""


@dataclass(frozen=True, eq=False)
class ZeroShotHead:
    """A classifier of image embeddings, made of texts."""

    label_names: tuple[str, ...]
    """Names of the classes."""
    templates: tuple[str, ...]
    """The prompts, each with ``{}`` where the name of the class stands."""
    kernel: Float[np.ndarray, "embedding classes"]
    """The embedding of each class, of unit length."""
    scale: float
    """Factor of the cosines, ``exp(logit_scale)``."""
    bias: float | None = None
    """``logit_bias`` of SigLIP, whose classes are judged one by one; None: CLIP, whose classes share a softmax."""

    def logits(self, embeddings: Float[Array, "*batch embedding"]) -> Float[Array, "*batch classes"]:
        """Returns the logits of image embeddings of any length."""
        return self.scale * matmul(_unit_length(embeddings), jnp.asarray(self.kernel)) + (self.bias or 0.0)

    def losses(
        self, logits: Float[Array, "*points images classes"], labels: Int[np.ndarray, " images"]
    ) -> Float[Array, "*points images"]:
        """Returns the loss of each image in nats: the cross-entropy or, for SigLIP, the sum of ``-log sigmoid(z x)``.

        ``z`` is 1 at the class of the image and -1 at the others (Zhai et al. 2023, equation 2).
        """
        if self.bias is None:
            return losses_of(logits, labels)
        signs = 2.0 * jax.nn.one_hot(labels, logits.shape[-1]) - 1.0
        return jax.nn.softplus(-signs * logits).sum(axis=-1)

    @property
    def on_unit_embeddings(self) -> Head:
        """The same classifier as a linear head of embeddings of unit length; see ``with_unit_embeddings``."""
        bias = np.full(len(self.label_names), self.bias or 0.0, np.float32)
        return {"kernel": np.float32(self.scale) * self.kernel, "bias": bias}


@dataclass(frozen=True, eq=False)
class ZeroShotEvaluation:
    """Losses and predictions of some points on one dataset, without a probe."""

    region: Region
    """The population."""
    coefficients: Float[np.ndarray, "points members"]
    """One row per point."""
    dataset: Dataset
    """The target dataset."""
    losses: Float[np.ndarray, "points images"]
    """Loss of each test image, in nats; see ``ZeroShotHead.losses``."""
    predictions: Int[np.ndarray, "points images"]
    """Predicted class of each test image."""

    @property
    def zero_shot_loss(self) -> Float[np.ndarray, " points"]:
        """Mean loss of each point, in nats."""
        return self.losses.mean(axis=1)

    @property
    def scores(self) -> Float[np.ndarray, " points"]:
        """Score of each point in the dataset's own metric."""
        labels = self.dataset.splits["test"].labels
        return np.array([score(self.dataset.metric, labels, own) for own in self.predictions])

    @property
    def by_text(self) -> Float[np.ndarray, "points images"]:
        """Loss of each test image."""
        return self.losses

    @property
    def values(self) -> dict[str, Float[np.ndarray, " points"]]:
        """Loss and score of each point, by name."""
        return {LOSS: self.zero_shot_loss, f"zero_shot_{self.dataset.metric}": self.scores}

    def to_frame(self) -> "pandas.DataFrame":
        """Returns a table with one row per point: loss, score, and one coefficient per member."""
        import pandas

        values = {LOSS: self.zero_shot_loss, self.dataset.metric: self.scores}
        return pandas.DataFrame(values | dict(zip(self.region.names, self.coefficients.T, strict=True)))

    def rows(self, group: str, **more: Any) -> list[Row]:
        """Returns one row per point and metric as ``Evaluation.rows`` does.

        Args:
          group: name of the group of points.
          more: further entries of each row.
        """
        same = {"texts": self.losses.shape[1], "members": self.region.names, **more}
        how = (EXACT,) * len(self.coefficients)
        return rows_of_points(group, self.dataset.name, self.coefficients, self.values, how=how, **same)


def evaluate_zero_shot(
    region: Region,
    coefficients: Float[np.ndarray, "*points members"],
    dataset: Dataset,
    head: ZeroShotHead,
    *,
    settings: Settings = Settings(),
) -> ZeroShotEvaluation:
    """Evaluates points of a population of vision towers of CLIP or SigLIP on the test split of a dataset.

    Args:
      region: the population; its model has the projection of image embeddings.
      coefficients: one point or one row per point; one column per member, in the order of ``region.members``.
      dataset: the target dataset of images.
      head: the classes, see ``zero_shot_head``.
      settings: chunk size, memory, devices, precision and cache of results.

    Raises:
      WsrError: if the model gives no embeddings, a member has a text tower of its own, or the head has other classes.

    Example:
      A head is usually made of texts, by ``zero_shot_head(base, data.label_names)``; this one is drawn at random.

      >>> import jax, numpy as np, wsr
      >>> from wsr.engine.zero_shot import ZeroShotHead
      >>> from wsr.models.clip_vision import EXAMPLE
      >>> data = wsr.load_dataset("digits", wsr.load("tiny_vit").processor, sizes={"test": 20})
      >>> model = wsr.models.build("clip_vision", EXAMPLE)
      >>> region = wsr.from_params(model, model.init(jax.random.key(0)), {"other": model.init(jax.random.key(1))})
      >>> kernel = np.random.default_rng(0).normal(size=(EXAMPLE["projection_dim"], data.classes))
      >>> head = ZeroShotHead(data.label_names, ("a {}",), kernel / np.linalg.norm(kernel, axis=0), scale=10.0)
      >>> wsr.evaluate_zero_shot(region, region.centroid(), data, head).losses.shape
      (1, 20)
    """
    coefficients = np.atleast_2d(coefficients)
    if len(head.label_names) != dataset.classes:
        raise WsrError(f"{dataset.name} has {dataset.classes} classes, but the head has {len(head.label_names)}")
    refuse_other_text_towers(region)
    embedding, test = with_embeddings(region), dataset.splits["test"]
    numbers = str(head.scale) if head.bias is None else f"{head.scale} {head.bias}"
    digest = hashlib.sha256(np.ascontiguousarray(head.kernel).tobytes() + numbers.encode()).hexdigest()
    what: dict[str, object] = {"dataset": dataset.content_hash, "zero_shot": digest}

    def scored(embeddings: Float[AnyArray, "chunk images embedding"]) -> dict[str, np.ndarray]:
        logits = head.logits(jnp.asarray(embeddings))
        losses = head.losses(logits, test.labels)
        return {"losses": np.asarray(losses), "predictions": np.asarray(logits.argmax(axis=-1))}

    kept = score_points(
        embedding,
        coefficients,
        [key_of(embedding, row, what, settings.precision) for row in coefficients],
        {"test": test},
        lambda features: scored(features["test"]),
        settings=settings,
        note=dataset.name,
    )
    return ZeroShotEvaluation(region, coefficients, dataset, kept["losses"], kept["predictions"])


def zero_shot_head(base: Checkpoint, label_names: Sequence[str], templates: Sequence[str] = TEMPLATES) -> ZeroShotHead:
    """Returns the head that the text tower makes of the names of classes.

    Args:
      base: the base of the population, a whole CLIP or SigLIP: read from its folder, or from a store made of it.
      label_names: names of the classes; underscores in them become spaces.
      templates: prompts with ``{}`` where the name stands; the unit embeddings of a class's prompts are averaged.

    Raises:
      WsrError: if the base is not a whole CLIP or SigLIP, its tokenizer pads on the left or with nothing, a template
        has no ``{}``, or there are no names.
    """
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise WsrError(f"templates: expected prompts with {{}} where the class stands, found {wrong or 'none'}")
    if not label_names:
        raise WsrError("the dataset names no classes, so there are no prompts; name them with --label_names=A,B,...")
    if base.model.name not in _TOWERS or base.folder is None:
        raise WsrError(
            f"{base.name or base.model.name}: zero-shot heads need a whole CLIP or SigLIP as the base, with its folder"
        )
    part, called = _TOWERS[base.model.name]
    tower, beside = read_part(base.folder, part, pooling=PROJECTION)
    missing = [name for name in _numbers_of(part) if name not in beside]
    if missing:
        raise WsrError(f"{base.folder}: no {', '.join(missing)} in the file; expected a whole {called}")
    if part == "siglip_text":
        tower = _padding_as_its_tokenizer(tower)
    spoken = [name.replace("_", " ") for name in label_names]
    prompts = [template.replace("{}", name) for name in spoken for template in templates]
    tokenizer = tower.processor
    split, cut = tokenise(
        prompts,
        None,
        np.zeros(len(prompts), np.int32),
        tokenizer,
        tower.model.max_length,
        hash_tokenizer(tokenizer),
    )
    if cut:
        raise WsrError(f"{cut} of {len(prompts)} prompts are longer than {tower.model.max_length} tokens; shorten them")
    embeddings = _unit(all_features(tower.model, tower.params, split))
    classes = _unit(embeddings.reshape(len(spoken), len(templates), -1).mean(axis=1))
    scale, *bias = (float(np.asarray(beside[name], np.float64).item()) for name in _numbers_of(part))
    names, prompts_of = tuple(label_names), tuple(templates)
    return ZeroShotHead(names, prompts_of, np.ascontiguousarray(classes.T), float(np.exp(scale)), *bias)


def _numbers_of(part: str) -> tuple[str, ...]:
    """Returns the tensors beside a text tower that logits are made with."""
    return ("logit_scale", "logit_bias") if part == "siglip_text" else ("logit_scale",)


def _padding_as_its_tokenizer(tower: Checkpoint) -> Checkpoint:
    """Returns SigLIP's text tower with the padding of its tokenizer, whatever its config says."""
    tokenizer = tower.processor
    if tokenizer.pad_token_id is None or tokenizer.padding_side != "right":
        raise WsrError(
            f"{tower.folder}: SigLIP's text tower reads padding on the right of a text; its tokenizer pads on the "
            f"{tokenizer.padding_side} with {tokenizer.pad_token!r}; correct tokenizer_config.json"
        )
    model = build(tower.model.name, {**tower.model.config, "pad_token_id": int(tokenizer.pad_token_id)})
    return replace(tower, model=model)


def with_embeddings(region: Region) -> Region:
    """Returns the same region with a model whose features are image embeddings.

    Raises:
      WsrError: if the region's model is neither a vision tower of CLIP with its projection nor one of SigLIP with its
        pooling by attention.
    """
    model = region.model
    if model.name not in _TOWERS or not model.config.get("projection", model.config.get("vision_use_head")):
        raise WsrError(
            f"{model.name}: gives no image embeddings; zero-shot heads need CLIP's vision tower with its projection "
            "(CLIPModel or CLIPVisionModelWithProjection) or SigLIP's with its pooling by attention (SiglipModel)"
        )
    return region.with_model(_projected(model))


def with_unit_embeddings(region: Region) -> Region:
    """Returns the same region with a model whose features are image embeddings of unit length.

    Raises:
      WsrError: see ``with_embeddings``.
    """
    return region.with_model(_of_unit_length(with_embeddings(region).model))


def refuse_other_text_towers(region: Region) -> None:
    """Raises ``WsrError`` if a member of the region's store has a text tower of its own, not the base's."""
    store = region.store
    if store is None:
        return
    others = [
        name
        for name in region.names
        if name in store and any(tensor.startswith(_OF_TEXT_TOWER) for tensor in flatten(store.head(name)))
    ]
    if others:
        raise WsrError(
            f"{', '.join(others)}: fine-tuned with a text tower other than the base's, so the head of the base is not "
            "theirs; leave them out, or use --loss=generalised"
        )


def read_templates(text: str) -> tuple[str, ...]:
    """Returns the prompts of the command line: one prompt, or those of a text file with one on each line.

    Raises:
      WsrError: if the file is not readable.
    """
    if "{}" in text:
        return (text,)
    try:
        lines = Path(text).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WsrError(f"{text}: neither a prompt with {{}} nor a readable text file of prompts: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


@lru_cache(maxsize=8)  # programs are compiled once per model
def _projected(model: Model) -> Model:
    pooling = PROJECTION if model.name == "clip_vision" else ATTENTION
    return build(model.name, {**model.config, "pooling": pooling})


@lru_cache(maxsize=8)
def _of_unit_length(model: Model) -> Model:
    def encode(params: Params, batch: Batch, dropout_key: Array | None = None) -> Float[Array, "batch embedding"]:
        return _unit_length(model.encode(params, batch, dropout_key))

    return replace(model, encode=encode)


def _unit_length(embeddings: Float[Array, "*batch embedding"]) -> Float[Array, "*batch embedding"]:
    return embeddings / jnp.linalg.norm(embeddings, axis=-1, keepdims=True)


def _unit(rows: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows features"]:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
