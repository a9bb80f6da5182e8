"""SigLIP's towers against PyTorch on a small random model built by transformers, and their folders both ways."""

import functools
import json

import jax
import numpy as np
import pytest
from models_support import every_token, one_a_row, random_texts

from wsr import models
from wsr.data.image_processor import ImageProcessor
from wsr.errors import WsrError
from wsr.exchange.admission import admit
from wsr.exchange.member import read_member
from wsr.geometry.trees import flatten
from wsr.models.huggingface.config import read_config
from wsr.models.huggingface.folder import read_processor, write_folder
from wsr.models.huggingface.heads import stored_classifier
from wsr.models.huggingface.weights import from_huggingface
from wsr.models.siglip_vision import EXAMPLE
from wsr.store import Store

LAYERS = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**LAYERS, "image_size": 12, "patch_size": 4, "num_channels": 3}
TEXT = {**LAYERS, "hidden_size": 16, "vocab_size": 60, "max_position_embeddings": 20, "projection_size": 24}
PROCESSOR = ImageProcessor(size=12, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resample=3)


@pytest.fixture(scope="module", autouse=True)
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


pytestmark = pytest.mark.torch


@functools.cache
def whole(act="gelu_pytorch_tanh", seed=0):
    """A random SigLIP of transformers."""
    import torch
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(seed)
    vision, text = ({**sizes, "hidden_act": act} for sizes in (VISION, TEXT))
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # Fresh models have zero biases and unit scales: hide nothing.
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def write(model, folder):
    """Writes a model with its image processor."""
    model.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return folder


def images(count=2):
    return np.random.default_rng(0).standard_normal((count, 12, 12, 3)).astype(np.float32)


def of(torch, model):
    """The outputs of a vision tower of transformers on the images."""
    with torch.no_grad():
        return model(torch.tensor(images().transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("act", ["gelu_pytorch_tanh", "gelu"])
def test_features_are_those_of_transformers(torch, tmp_path, act):
    theirs = whole(act)
    theirs.config.save_pretrained(tmp_path)
    name, config = read_config(tmp_path)
    assert name == "siglip_vision"
    tensors = {key: tensor.numpy() for key, tensor in theirs.state_dict().items()}
    expected = of(torch, theirs.vision_model)
    for pooling, features in (("attention", expected.pooler_output), ("mean", expected.last_hidden_state.mean(dim=1))):
        model = models.build(name, {**config, "pooling": pooling})
        params, dropped = from_huggingface(model, tensors)
        assert {"logit_scale", "logit_bias"} <= set(dropped)
        found = model.encode(params, {"pixel_values": images()})
        np.testing.assert_allclose(found, features.numpy(), rtol=0, atol=1e-4)


def test_gradients_of_every_parameter_agree(torch, tmp_path):
    theirs = whole().vision_model
    theirs.config.save_pretrained(tmp_path)
    name, config = read_config(tmp_path)
    model = models.build(name, {**config, "pooling": "attention"})
    tensors = {key: tensor.numpy() for key, tensor in theirs.state_dict().items()}
    params, _ = from_huggingface(model, tensors)
    weights = np.random.default_rng(1).standard_normal((2, 24)).astype(np.float32)
    theirs.zero_grad()
    pooled = theirs(torch.tensor(images().transpose(0, 3, 1, 2))).pooler_output
    (pooled * torch.tensor(weights)).sum().backward()
    gradients, _ = from_huggingface(model, {key: own.grad.numpy() for key, own in theirs.named_parameters()})
    found = jax.grad(lambda own: (model.encode(own, {"pixel_values": images()}) * weights).sum())(params)
    for path, leaf in flatten(gradients).items():
        scale = max(1.0, float(np.abs(leaf).max()))
        np.testing.assert_allclose(flatten(found)[path] / scale, leaf / scale, rtol=0, atol=1e-4, err_msg=path)


LENGTHS = [5, 9, 3]


@pytest.fixture(scope="module")
def text_tower(torch, tmp_path_factory):
    """The config of our text tower, its parameters, texts, and the texts padded to the tower's length."""
    theirs, place = whole(), tmp_path_factory.mktemp("text_tower")
    theirs.config.save_pretrained(place)
    name, config = read_config(place, "siglip_text")
    assert (name, config["pad_token_id"]) == ("siglip_text", 1)
    tensors = {key: tensor.numpy() for key, tensor in theirs.state_dict().items()}
    params, dropped = from_huggingface(models.build(name, {**config, "pooling": "projection"}), tensors)
    assert {"logit_scale", "logit_bias"} <= set(dropped)
    texts = random_texts(0, LENGTHS, 60)
    return config, params, texts, torch.tensor([ids + [1] * (20 - len(ids)) for ids, _ in texts])


@pytest.mark.parametrize("length", [9, 16, 24])  # of rows: shorter than the tower and longer
def test_text_features_are_those_of_transformers_padded_to_the_full_length(torch, text_tower, length):
    config, params, texts, padded = text_tower
    with torch.no_grad():
        expected = whole().text_model(padded)
    batch = one_a_row(texts, length)
    projected = models.build("siglip_text", {**config, "pooling": "projection"})
    np.testing.assert_allclose(projected.encode(params, batch), expected.pooler_output.numpy(), rtol=0, atol=1e-4)
    first = models.build("siglip_text", {**config, "pooling": "cls"})
    states = np.asarray(first.encode(params, every_token(batch))).reshape(len(texts), length, -1)
    for row, (ids, _) in enumerate(texts):
        theirs = expected.last_hidden_state[row, : len(ids)].numpy()
        np.testing.assert_allclose(states[row, : len(ids)], theirs, rtol=0, atol=1e-4)


def test_gradients_of_the_text_tower_agree(torch, text_tower):
    config, params, texts, padded = text_tower
    theirs = whole().text_model
    weights = np.random.default_rng(1).standard_normal((len(texts), 24)).astype(np.float32)
    theirs.zero_grad()
    (theirs(padded).pooler_output * torch.tensor(weights)).sum().backward()
    model = models.build("siglip_text", {**config, "pooling": "projection"})
    gradients, _ = from_huggingface(model, {key: own.grad.numpy() for key, own in theirs.named_parameters()})
    found = jax.grad(lambda own: (model.encode(own, one_a_row(texts, 9)) * weights).sum())(params)
    for path, leaf in flatten(gradients).items():
        scale = max(1.0, float(np.abs(leaf).max()))
        np.testing.assert_allclose(flatten(found)[path] / scale, leaf / scale, rtol=0, atol=1e-4, err_msg=path)


def test_a_text_tower_alone_comes_in_and_goes_out_as_its_class(torch, tiny, tmp_path):
    from transformers import SiglipTextConfig, SiglipTextModel

    torch.manual_seed(0)
    theirs = SiglipTextModel(SiglipTextConfig(**{**TEXT, "vocab_size": 112})).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    tiny.processor.save_pretrained(tmp_path / "theirs")
    read = models.load(str(tmp_path / "theirs"))
    assert (read.model.name, read.model.config["pooling"], read.model.hidden) == ("siglip_text", "projection", 24)
    models.export(read, tmp_path / "ours")
    again, info = SiglipTextModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert models.load(str(tmp_path / "ours")).model.config == read.model.config
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        found, expected = (own(ids).pooler_output for own in (again.eval(), theirs))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store whose base is a whole SigLIP, with another whole one and a vision tower alone as members."""
    place = tmp_path_factory.mktemp("siglip")
    store = Store.create_for(place / "store", models.load(str(write(whole(), place / "base"))))
    theirs = {"both": whole(seed=1), "alone": whole(seed=2)}
    write(theirs["both"], place / "both")
    write(theirs["alone"].vision_model, place / "alone")
    for name in theirs:
        incoming = read_member(place / name, store.checkpoint())
        admit(store, incoming, name=name, dataset=name, family=None, source=str(place / name))
    return store, theirs


def test_members_go_out_as_whole_models_with_their_tower(torch, store, tmp_path):
    from transformers import AutoImageProcessor, SiglipModel

    store, theirs = store
    for name, model in theirs.items():
        params, _ = store.load(name)
        leaf = flatten(params).__getitem__
        write_folder(store.model, leaf, store.processor(), tmp_path / name, companions=store.companions([name]))
        again, info = SiglipModel.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        found, expected = (of(torch, own.vision_model).pooler_output for own in (again.eval(), model))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        # The text tower is that of the base, unless one asks for the member's own.
        for one, other in zip(again.text_model.parameters(), whole().text_model.parameters(), strict=True):
            assert torch.equal(one, other)
        assert AutoImageProcessor.from_pretrained(tmp_path / name) is not None


def test_a_vision_tower_alone_goes_out_as_its_class(torch, tmp_path):
    from transformers import SiglipVisionConfig, SiglipVisionModel

    for use_head in (True, False):
        torch.manual_seed(0)
        theirs = SiglipVisionModel(SiglipVisionConfig(**VISION, vision_use_head=use_head)).eval()
        place = tmp_path / str(use_head)
        read = models.load(str(write(theirs, place / "theirs")), pooling=None if use_head else "mean")
        assert read.model.config["vision_use_head"] == use_head
        models.export(read, place / "ours")
        again, info = SiglipVisionModel.from_pretrained(place / "ours", output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        found, expected = (of(torch, own).last_hidden_state for own in (again.eval(), theirs))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_an_image_classifier_comes_in_and_goes_out(torch, store, tmp_path):
    from transformers import SiglipForImageClassification

    store, _ = store
    config = whole().config.__class__(**{**whole().config.to_dict(), "num_labels": 3})
    torch.manual_seed(0)
    theirs = SiglipForImageClassification(config).eval()
    write(theirs, tmp_path / "member")
    incoming = read_member(tmp_path / "member", store.checkpoint())
    head = stored_classifier(incoming.head, json.loads(json.dumps(dict(incoming.about))))
    leaf = flatten(incoming.params).__getitem__
    write_folder(store.model, leaf, PROCESSOR, tmp_path / "out", head=head, companions=store.companions())
    again, info = type(theirs).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    found, expected = (of(torch, own).logits for own in (again.eval(), theirs))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_published_files_are_read(tmp_path):
    # With the keys of google/siglip-base-patch16-224.
    config = {"model_type": "siglip", "architectures": ["SiglipModel"], "initializer_factor": 1.0}
    config |= {
        "text_config": {"model_type": "siglip_text_model"},
        "vision_config": {"model_type": "siglip_vision_model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    name, read = read_config(tmp_path)
    model = models.build(name, {**read, "pooling": "attention"})
    assert (name, model.max_length, model.hidden, model.reads) == ("siglip_vision", 196, 768, "images")
    shapes = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
    assert sum(leaf.size for leaf in shapes) == 92_884_224  # of SiglipVisionModel(SiglipVisionConfig())
    published = {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5]}
    published |= {"image_processor_type": "SiglipImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 3}
    published |= {
        "processor_class": "SiglipProcessor",
        "rescale_factor": 1 / 255,
        "size": {"height": 224, "width": 224},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(published))
    half = (0.5, 0.5, 0.5)
    assert read_processor(tmp_path, model) == ImageProcessor(224, half, half, resample=3)


@pytest.mark.parametrize("settings", [{}, {"resample": 2, "image_mean": [0.4, 0.5, 0.6]}])
def test_pixels_are_those_of_siglips_processor(settings, tmp_path):
    from PIL import Image
    from transformers import SiglipImageProcessor

    size = {"height": 12, "width": 12}
    theirs = SiglipImageProcessor(size=size, **settings)
    written = {"image_processor_type": "SiglipImageProcessor", "size": size, **settings}  # what is absent has a default
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    ours = read_processor(tmp_path, models.build("siglip_vision", {**EXAMPLE, "image_size": 12, "num_channels": 3}))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8))
    expected = theirs(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_allclose(ours.normalise(ours.to_pixels(image)[None])[0], expected, rtol=0, atol=1e-5)
    assert ours.resample == settings.get("resample", int(theirs.resample))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 3}, "image_size = 8 is not a multiple of patch_size = 3"),
        ({"hidden_act": "mish"}, "hidden_act = 'mish'; known"),
        ({"vision_use_head": False}, "pooling = 'attention'; known: mean$"),
    ],
)
def test_other_configs_are_refused(changes, message):
    with pytest.raises(WsrError, match=message):
        models.build("siglip_vision", {**EXAMPLE, **changes})
