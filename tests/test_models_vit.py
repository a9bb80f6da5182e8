"""ViT against PyTorch on small random models built by transformers, and its folders both ways."""

import functools
import json

import jax
import numpy as np
import pytest
from flax import nnx

from wsr import models
from wsr.data.image_processor import ImageProcessor
from wsr.errors import WsrError
from wsr.exchange.member import read_member
from wsr.geometry.trees import flatten
from wsr.models.huggingface.config import read_config
from wsr.models.huggingface.folder import read_processor, write_folder
from wsr.models.huggingface.heads import stored_classifier
from wsr.models.huggingface.weights import from_huggingface
from wsr.models.vit import EXAMPLE, ViT, ViTConfig

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 3,
    # Wide, so that activations leave the range where exact and tanh GELU agree.
    "initializer_range": 0.3,
}
VARIANTS = {
    "": {},
    "no bias of queries, keys and values": {"qkv_bias": False},
    "large epsilon": {"layer_norm_eps": 1e-2},
    "grey": {"num_channels": 1},
    "tanh gelu": {"hidden_act": "gelu_new"},
}
PROCESSOR = ImageProcessor(size=12, mean=(0.5, 0.4, 0.3), std=(0.5, 0.6, 0.7))


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@functools.cache
def _pair(variant="", depth=3, pooling="cls"):
    import torch
    from transformers import ViTConfig as TheirConfig
    from transformers import ViTModel

    torch.manual_seed(0)
    theirs = ViTModel(TheirConfig(**{**SIZES, **VARIANTS[variant], "num_hidden_layers": depth})).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # Fresh models have zero biases and unit scales: hide nothing.
            parameter.add_(0.1 * torch.randn_like(parameter))
    config = {name: getattr(theirs.config, name) for name in models.architectures()["vit"].counterpart.taken}
    ours = models.build("vit", {**config, "pooling": pooling})
    params, dropped = from_huggingface(ours, {key: value.numpy() for key, value in theirs.state_dict().items()})
    assert dropped == ("pooler.dense.bias", "pooler.dense.weight")
    return theirs, ours, params


def _images(channels=3, count=2):
    return np.random.default_rng(0).standard_normal((count, 12, 12, channels)).astype(np.float32)


def _their_states(torch, theirs, images):
    with torch.no_grad():
        return theirs(torch.tensor(images.transpose(0, 3, 1, 2))).last_hidden_state.numpy()


@pytest.mark.torch
@pytest.mark.parametrize("variant", VARIANTS)
def test_features_of_both_poolings(torch, variant):
    theirs, ours, params = _pair(variant)
    images = _images(theirs.config.num_channels)
    states = _their_states(torch, theirs, images)
    batch = {"pixel_values": images}
    np.testing.assert_allclose(ours.encode(params, batch), states[:, 0], rtol=0, atol=1e-5)
    mean = models.build("vit", {**ours.config, "pooling": "mean"})
    np.testing.assert_allclose(mean.encode(params, batch), states[:, 1:].mean(axis=1), rtol=0, atol=1e-5)
    if variant and variant != "grey":  # Another function of the same weights, as far as they are of the same shape.
        plain, _, _ = _pair()
        assert np.abs(_their_states(torch, plain, images) - states).max() > 1e-4


@pytest.mark.torch
def test_hidden_states_at_twelve_layers(torch):
    theirs, ours, params = _pair(depth=12)
    found = ours.encode(params, {"pixel_values": _images()})
    np.testing.assert_allclose(found, _their_states(torch, theirs, _images())[:, 0], rtol=0, atol=1e-4)


@pytest.mark.torch
def test_gradients_of_every_parameter_agree(torch):
    theirs, ours, params = _pair()
    weights = np.random.default_rng(1).standard_normal((2, 24)).astype(np.float32)
    theirs.zero_grad()
    states = theirs(torch.tensor(_images().transpose(0, 3, 1, 2))).last_hidden_state
    (states[:, 0] * torch.tensor(weights)).sum().backward()
    gradients = {
        key: np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
        for key, parameter in theirs.named_parameters()
    }
    # A gradient has the form of the parameters, so that the weight map carries it over.
    expected, _ = from_huggingface(ours, gradients)
    found = jax.grad(lambda params: (ours.encode(params, {"pixel_values": _images()}) * weights).sum())(params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), found, expected)
    assert np.abs(expected["patches"]["kernel"]).max() > 1e-3


@pytest.mark.torch
def test_folders_of_transformers_are_read_and_ours_are_read_by_them(torch, tmp_path):
    from transformers import AutoModel, ViTForImageClassification

    theirs, ours, params = _pair(pooling="mean")
    # Files keep the names of version 4, whatever the modules are called in memory; with a head they have a prefix.
    ViTForImageClassification(theirs.config).save_pretrained(tmp_path / "classifier")
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in ("classifier", "theirs"):
        PROCESSOR.save_pretrained(tmp_path / folder)
    read = models.load(str(tmp_path / "theirs"))
    assert (read.model.name, read.model.config["pooling"], read.processor) == ("vit", "cls", PROCESSOR)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), read.params, params))
    assert models.load(str(tmp_path / "classifier")).params.keys() == params.keys()
    models.export(models.Checkpoint(ours, params, PROCESSOR), tmp_path / "ours")
    again = AutoModel.from_pretrained(tmp_path / "ours", add_pooling_layer=False)
    np.testing.assert_allclose(
        _their_states(torch, again, _images()), _their_states(torch, theirs, _images()), rtol=0, atol=1e-6
    )
    assert models.load(str(tmp_path / "ours")).model.config == ours.config


def test_the_huge_size_has_its_number_of_parameters():
    # ViT-H/14 at 224 pixels: 632.0 million with a classifier of 1,000 classes (Dosovitskiy et al. 2021 say 632 M).
    huge = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120}
    model = models.build("vit", {**EXAMPLE, **huge, "image_size": 224, "patch_size": 14, "num_channels": 3})
    params = jax.eval_shape(model.init, jax.random.key(0))
    block = 4 * (1280 * 1280 + 1280) + (1280 * 5120 + 5120) + (5120 * 1280 + 1280) + 4 * 1280
    embeddings = 14 * 14 * 3 * 1280 + 1280 + 1280 + 257 * 1280
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 32 * block + embeddings + 2 * 1280
    assert abs(32 * block + embeddings + 2 * 1280 + 1281 * 1000 - 632e6) < 0.5e6
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)
    assert jax.eval_shape(model.encode, params, {"pixel_values": images}).shape == (2, 1280)
    assert model.max_length == 257


def test_patches_are_those_of_a_convolution():
    config = {**EXAMPLE, "image_size": 12, "patch_size": 4, "num_channels": 3}
    params = models.build("vit", config).init(jax.random.key(0))["patches"]
    images = _images()
    expected = jax.lax.conv_general_dilated(
        images, params["kernel"], (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    module = nnx.eval_shape(lambda: ViT(ViTConfig.from_mapping(config), nnx.Rngs(0))).patches
    nnx.update(module, dict(params))
    found = module(jax.numpy.asarray(images), np.float32)
    np.testing.assert_allclose(found, expected.reshape(2, 9, 16), rtol=0, atol=1e-5)


def test_published_files_are_read(tmp_path):
    # With the keys of google/vit-base-patch16-224's config.json; its preprocessor_config.json has the older, bare form.
    config = {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "transformers_version": "4.13.0.dev0",
    }
    config |= {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    config |= {"hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config |= {"initializer_range": 0.02, "layer_norm_eps": 1e-12, "image_size": 224, "patch_size": 16}
    config |= {"num_channels": 3, "qkv_bias": True, "id2label": {"0": "tench"}, "label2id": {"tench": 0}}
    means = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    name, read = read_config(tmp_path)
    assert name == "vit"
    model = models.build(name, {**read, "pooling": "cls"})
    assert (model.max_length, model.hidden, model.reads, model.packed) == (197, 768, "images", False)
    for published in ({"do_normalize": True, "do_resize": True, "size": 224, **means}, {"size": 224, **means}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(published))
        assert read_processor(tmp_path, model) == ImageProcessor(224, (0.5,) * 3, (0.5,) * 3)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(WsrError, match=r"preprocessor_config\.json: no such file"):
        read_processor(tmp_path, model)


def test_a_folder_of_another_is_read_as_a_member(tmp_path):
    base = models.load("tiny_vit")
    moved = jax.tree.map(lambda leaf: leaf + 0.01, base.params)
    models.export(models.Checkpoint(base.model, moved, base.processor), tmp_path / "member")
    found = read_member(tmp_path / "member", base)
    np.testing.assert_array_equal(found.params["patches"]["kernel"], moved["patches"]["kernel"])
    assert found.kinship.same_base
    other = models.build("vit", {**base.model.config, "patch_size": 4})
    models.export(models.Checkpoint(other, other.init(jax.random.key(0)), base.processor), tmp_path / "other")
    with pytest.raises(WsrError, match="config patch_size is 4 there and 2 in the base"):
        read_member(tmp_path / "other", base)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 5}, "image_size = 8 is not a multiple of patch_size = 5"),
        ({"pooling": "last"}, "pooling = 'last'; known: cls, mean"),
        ({"image_size": [12, 16]}, "values of the wrong type: image_size"),
    ],
)
def test_configs_that_make_no_encoder_are_refused(changes, message):
    with pytest.raises(WsrError, match=message):
        models.build("vit", {**EXAMPLE, **changes})


def test_tiny_vit_is_the_same_everywhere_and_its_folder_gives_it_back(tmp_path):
    first, again = models.load("tiny_vit"), models.load("tiny_vit")
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first.params, again.params))
    models.export(first, tmp_path / "folder")
    read = models.load(str(tmp_path / "folder"))
    assert (read.model.name, read.model.config, read.processor) == ("vit", first.model.config, first.processor)
    for path, leaf in flatten(first.params).items():
        np.testing.assert_array_equal(flatten(read.params)[path], leaf)


@pytest.mark.torch
@pytest.mark.parametrize("head", ["ForImageClassification", "ForMaskedImageModeling"])
def test_an_exported_head_gives_the_same_logits(torch, tmp_path, head):
    import transformers

    torch.manual_seed(0)
    labels = {"id2label": {0: "x", 1: "y", 2: "z"}, "label2id": {"x": 0, "y": 1, "z": 2}}
    more = labels if head == "ForImageClassification" else {"encoder_stride": 4}
    theirs = getattr(transformers, f"ViT{head}")(transformers.ViTConfig(**SIZES, **more)).eval()
    for folder in ("base", "member"):
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        theirs.save_pretrained(tmp_path / folder)
        PROCESSOR.save_pretrained(tmp_path / folder)
    base = models.load(str(tmp_path / "base"))
    incoming = read_member(tmp_path / "member", base)
    about = json.loads(json.dumps(dict(incoming.about)))
    leaves = flatten(incoming.params)
    write_folder(
        base.model, leaves.__getitem__, PROCESSOR, tmp_path / "out", head=stored_classifier(incoming.head, about)
    )
    again, info = type(theirs).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert again.config.id2label == theirs.config.id2label
    pixels = torch.tensor(_images().transpose(0, 3, 1, 2))
    mask = {"bool_masked_pos": torch.arange(9)[None] % 2 == 1} if head == "ForMaskedImageModeling" else {}
    with torch.no_grad():
        found, expected = (
            next(iter(own for name, own in model(pixels, **mask).items() if name in ("logits", "reconstruction")))
            for model in (again.eval(), theirs)
        )
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)
