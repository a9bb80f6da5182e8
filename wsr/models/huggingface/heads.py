"""Classifiers of ``transformers``: a head as it was stored, or a linear head of ours in one that computes the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.models.huggingface.config import counterpart_of
from wsr.models.model import Model
from wsr.types import Head


@dataclass(frozen=True, eq=False)
class ClassifierHead:
    """What makes an encoder's folder a classifier's."""

    prefix: str
    """Of the names of the encoder's tensors."""
    tensors: Mapping[str, np.ndarray]
    """The head's own, float32, by their names in the file."""
    config: Mapping[str, Any]
    """Attributes of the config: architectures, id2label, ..."""


TANH_CLASSIFIERS: Mapping[str, tuple[str, str, str]] = {
    "bert": ("BertForSequenceClassification", "bert.pooler.dense", "classifier"),
    "roberta": ("RobertaForSequenceClassification", "classifier.dense", "classifier.out_proj"),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", "classifier.dense", "classifier.out_proj"),
    "albert": ("AlbertForSequenceClassification", "albert.pooler", "classifier"),
    "mpnet": ("MPNetForSequenceClassification", "classifier.dense", "classifier.out_proj"),
}
"""By model type, classifiers of ``W2 tanh(W1 x + b1) + b2``, x the first token: class, modules of W1 and of W2."""

_SMALL = 2.0**-13
"""``tanh(s x) / s`` is ``x`` but for a part of ``(s x)^2 / 3``, which for |x| < 10 is 5e-7; a power of two rounds
nothing."""


def linear_classifier(model: Model, head: Head) -> ClassifierHead:
    """Returns the classifier with the logits ``features @ kernel + bias``.

    Where ``transformers`` has a tanh between two layers, the first is the identity times a small number, so small that
    tanh is the identity too, and the second undoes it.

    Raises:
        WsrError: the architecture has no such classifier, or it does not read what the head reads.
    """
    kind = counterpart_of(model).model_type
    if kind not in TANH_CLASSIFIERS:
        raise WsrError(
            f"{kind}: no classifier of transformers is known to compute a linear head; known for "
            f"{', '.join(TANH_CLASSIFIERS)}; export without --head"
        )
    pooling = model.config["pooling"]
    if pooling != "cls":
        raise WsrError(
            f"the head reads features pooled by {pooling!r}, the classifiers of transformers for {kind} read the first "
            "token ('cls'); export without --head"
        )
    name, first, second = TANH_CLASSIFIERS[kind]
    kernel, bias = np.asarray(head["kernel"], np.float32), np.asarray(head["bias"], np.float32)
    tensors = {
        f"{first}.weight": np.float32(_SMALL) * np.eye(model.hidden, dtype=np.float32),
        f"{first}.bias": np.zeros(model.hidden, np.float32),
        f"{second}.weight": kernel.T / np.float32(_SMALL),
        f"{second}.bias": bias,
    }
    names = {number: f"LABEL_{number}" for number in range(len(bias))}
    config = {"id2label": names, "label2id": {label: number for number, label in names.items()}}
    return ClassifierHead(counterpart_of(model).prefix, tensors, {"architectures": [name], **config})


def stored_classifier(head: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> ClassifierHead:
    """Returns the head of a model that was imported, as ``about`` (``wsr.exchange.member``) says it was."""
    config = dict(about["config"])
    if "id2label" in config:  # keys of JSON are texts
        config["id2label"] = {int(number): label for number, label in config["id2label"].items()}
    return ClassifierHead(about["prefix"], {name: np.asarray(own, np.float32) for name, own in head.items()}, config)
