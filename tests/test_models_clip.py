"""Both towers of CLIP against PyTorch on small random models built by transformers, and their folders both ways."""

import json

import jax
import numpy as np
import pytest
from clip_world import PROCESSOR, TEXT, VISION, moved, whole, write_whole
from models_support import in_rows
from safetensors.numpy import load_file, save_file

from wsr import models
from wsr.data.image_processor import CroppingProcessor
from wsr.errors import WsrError
from wsr.exchange.admission import admit
from wsr.exchange.member import read_member
from wsr.geometry.trees import flatten
from wsr.models.clip_text import EXAMPLE as TEXT_EXAMPLE
from wsr.models.clip_vision import EXAMPLE as VISION_EXAMPLE
from wsr.models.huggingface.config import read_config
from wsr.models.huggingface.folder import read_processor, write_folder
from wsr.models.huggingface.heads import stored_classifier
from wsr.models.huggingface.weights import from_huggingface
from wsr.store import Store

ENDS = [[2, 9, 30, 3], [2, 3, 3, 17, 3], [2, 8, 4, 11, 21, 5, 3]]
"""Texts that end with the token 3, the second with more of them before its end."""


@pytest.fixture(scope="module", autouse=True)
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


pytestmark = pytest.mark.torch


def _tensors(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def _tower(model, name, folder):
    """Our tower of a CLIP of transformers: a function from the pooling to the model, and the parameters."""
    model.config.save_pretrained(folder)
    read_as, config = read_config(folder, name)
    assert read_as == name
    built = {
        pooling: models.build(name, {**config, "projection": True, "pooling": pooling})
        for pooling in ("projection", "mean", "cls", *(["eos"] if name == "clip_text" else []))
    }
    params, dropped = from_huggingface(built["projection"], _tensors(model))
    assert "logit_scale" in dropped
    return built, params


def _images(count=2):
    return np.random.default_rng(0).standard_normal((count, 12, 12, 3)).astype(np.float32)


def _channels_first(torch, images):
    return torch.tensor(images.transpose(0, 3, 1, 2))


def _padded(torch, texts, padding):
    longest = max(map(len, texts))
    ids = torch.tensor([[*ids, *[padding] * (longest - len(ids))] for ids in texts])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts])
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_image_features_are_those_of_transformers(torch, tmp_path, act):
    theirs = whole(act)
    built, params = _tower(theirs, "clip_vision", tmp_path)
    with torch.no_grad():
        expected = theirs.vision_model(_channels_first(torch, _images()))
        embeddings = theirs.get_image_features(_channels_first(torch, _images())).pooler_output.numpy()
    batch = {"pixel_values": _images()}
    states = expected.last_hidden_state.numpy()
    np.testing.assert_allclose(built["cls"].encode(params, batch), expected.pooler_output.numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(built["mean"].encode(params, batch), states[:, 1:].mean(axis=1), rtol=0, atol=1e-4)
    np.testing.assert_allclose(built["projection"].encode(params, batch), embeddings, rtol=1e-5, atol=1e-4)
    if act == "gelu":
        with torch.no_grad():
            other = whole().vision_model(_channels_first(torch, _images())).pooler_output.numpy()
        assert np.abs(other - expected.pooler_output.numpy()).max() > 1e-3


@pytest.mark.parametrize(("eos", "padding"), [(3, 3), (3, 1), (2, 0)])
def test_text_features_are_those_of_transformers(torch, tmp_path, eos, padding):
    # Under the old eos_token_id = 2 the largest id of a text marks its end, wherever it stands.
    theirs = whole(eos=eos)
    built, params = _tower(theirs, "clip_text", tmp_path)
    with torch.no_grad():
        expected = theirs.text_model(**_padded(torch, ENDS, padding)).pooler_output.numpy()
        embeddings = theirs.get_text_features(**_padded(torch, ENDS, padding)).pooler_output.numpy()
    batch = in_rows([(ids, [0] * len(ids)) for ids in ENDS], [[1, 0], [2]], 12)
    np.testing.assert_allclose(built["eos"].encode(params, batch), expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(built["projection"].encode(params, batch), embeddings, rtol=1e-5, atol=1e-4)
    if eos == 2:
        last = np.asarray(built["cls"].encode(params, batch)), np.asarray(built["eos"].encode(params, batch))
        assert np.abs(last[0] - last[1]).max() > 1e-3


def test_gradients_of_every_parameter_agree(torch, tmp_path):
    theirs = whole()
    built, params = _tower(theirs, "clip_vision", tmp_path)
    weights = np.random.default_rng(1).standard_normal((2, 10)).astype(np.float32)
    theirs.zero_grad()
    embeddings = theirs.get_image_features(_channels_first(torch, _images())).pooler_output
    (embeddings * torch.tensor(weights)).sum().backward()
    gradients = {
        key: np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
        for key, parameter in theirs.named_parameters()
    }
    expected, _ = from_huggingface(built["projection"], gradients)

    def loss(params):
        return (built["projection"].encode(params, {"pixel_values": _images()}) * weights).sum()

    found = jax.grad(loss)(params)
    for path, leaf in flatten(expected).items():
        scale = max(1.0, float(np.abs(leaf).max()))
        np.testing.assert_allclose(flatten(found)[path] / scale, leaf / scale, rtol=0, atol=1e-4, err_msg=path)
    assert np.abs(expected["patches"]["kernel"]).max() > 1e-3


# Folders


def _embeddings(torch, model, images=True):
    with torch.no_grad():
        if images:
            return model.get_image_features(_channels_first(torch, _images())).pooler_output.numpy()
        return model.get_text_features(**_padded(torch, ENDS, 3)).pooler_output.numpy()


def _logits(torch, model):
    with torch.no_grad():
        pixels = _channels_first(torch, _images())
        return model(pixel_values=pixels, **_padded(torch, ENDS, 3)).logits_per_image.numpy()


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    """A store whose base is a whole CLIP, with a member whose text tower is frozen, and one that is a tower alone."""
    place = tmp_path_factory.mktemp("clip")
    base = models.load(str(write_whole(tiny, place / "base")))
    store = Store.create_for(place / "store", base)
    frozen = moved(whole(), ("vision_model", "visual_projection"), 1)
    write_whole(tiny, place / "frozen", frozen)
    alone = moved(whole(), ("vision_model",), 2)
    alone.vision_model.save_pretrained(place / "alone")
    for name in ("frozen", "alone"):
        incoming = read_member(place / name, store.checkpoint())
        admit(store, incoming, name=name, dataset=name, family=None, source=str(place / name))
    return store, {"frozen": frozen, "alone": alone}, place


def test_a_whole_clip_and_a_vision_tower_alone_are_members(torch, store):
    store, theirs, place = store
    assert store.model_name == "clip_vision"
    for name, model in theirs.items():
        params, head = store.load(name)
        assert flatten(head) == {}
        projected = models.build("clip_vision", {**store.model_config, "pooling": "projection"})
        found = projected.encode(jax.tree.map(jax.numpy.asarray, params), {"pixel_values": _images()})
        np.testing.assert_allclose(found, _embeddings(torch, model), rtol=1e-5, atol=1e-4)
    notes = read_member(place / "alone", store.checkpoint()).notes
    assert "no visual_projection.weight in the file: taken from the base" in notes
    notes = read_member(place / "frozen", store.checkpoint()).notes
    assert any(note.startswith("equal to the base and not stored again: ") for note in notes)


def test_an_export_is_a_whole_clip_with_the_outputs_of_the_member(torch, store, tmp_path):
    from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPVisionModelWithProjection

    store, theirs, _ = store
    for name, model in theirs.items():
        params, _ = store.load(name)
        leaf = flatten(params).__getitem__
        write_folder(store.model, leaf, store.processor(), tmp_path / name, companions=store.companions([name]))
        again, info = CLIPModel.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        np.testing.assert_allclose(_logits(torch, again.eval()), _logits(torch, model), rtol=1e-5, atol=1e-5)
        assert again.logit_scale.shape == ()
        tower = CLIPVisionModelWithProjection.from_pretrained(tmp_path / name).eval()
        with torch.no_grad():
            found = tower(_channels_first(torch, _images())).image_embeds.numpy()
        np.testing.assert_allclose(found, _embeddings(torch, model), rtol=1e-5, atol=1e-5)
    assert type(AutoModel.from_pretrained(tmp_path / "frozen")).__name__ == "CLIPModel"
    assert AutoProcessor.from_pretrained(tmp_path / "frozen") is not None
    assert models.load(str(tmp_path / "frozen")).model.config == store.model_config


def test_a_text_tower_of_its_own_is_kept_as_a_head_and_goes_out_with_it(torch, store, tiny, tmp_path):
    from transformers import CLIPModel

    store, _, _ = store
    model = moved(whole(), ("text_model.final", "vision_model", "logit_scale"), 3)
    incoming = read_member(write_whole(tiny, tmp_path / "both", model), store.checkpoint())
    own = {"text_model.final_layer_norm.weight", "text_model.final_layer_norm.bias", "logit_scale"}
    assert set(incoming.head) == own
    head = stored_classifier(incoming.head, json.loads(json.dumps(dict(incoming.about))))
    leaf = flatten(incoming.params).__getitem__
    write_folder(store.model, leaf, PROCESSOR, tmp_path / "out", head=head, companions=store.companions())
    again, info = CLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    np.testing.assert_allclose(_logits(torch, again.eval()), _logits(torch, model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["CLIPVisionModel", "CLIPVisionModelWithProjection"])
def test_a_vision_tower_alone_goes_out_as_its_class(torch, tmp_path, kind):
    import transformers

    torch.manual_seed(0)
    theirs = getattr(transformers, kind)(transformers.CLIPVisionConfig(**VISION, projection_dim=10)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    PROCESSOR.save_pretrained(tmp_path / "theirs")
    read = models.load(str(tmp_path / "theirs"))
    assert (read.model.name, read.processor) == ("clip_vision", PROCESSOR)
    assert read.model.config["projection"] == kind.endswith("Projection")
    models.export(read, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"] == [kind]
    again, info = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        found, expected = (
            list(model(_channels_first(torch, _images())).to_tuple())[:2] for model in (again.eval(), theirs)
        )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_a_text_tower_alone_goes_out_as_its_class(torch, tiny, tmp_path):
    import transformers

    torch.manual_seed(0)
    theirs = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**TEXT, projection_dim=10)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    tiny.processor.save_pretrained(tmp_path / "theirs")
    read = models.load(str(tmp_path / "theirs"))
    assert (read.model.name, read.model.config["pooling"], read.model.config["projection"]) == (
        "clip_text",
        "eos",
        True,
    )
    models.export(read, tmp_path / "ours")
    again = transformers.CLIPTextModelWithProjection.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        found, expected = (model(**_padded(torch, ENDS, 1)).text_embeds.numpy() for model in (again, theirs))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert models.load(str(tmp_path / "ours")).model.config == read.model.config
    # A whole CLIP is a member by its text tower.
    config = {"text_config": {**TEXT, "projection_dim": 10}, "vision_config": VISION, "projection_dim": 10}
    member = transformers.CLIPModel(transformers.CLIPConfig(**config))
    member.text_model.load_state_dict(theirs.text_model.state_dict())
    found = read_member(write_whole(tiny, tmp_path / "whole", member), read)
    np.testing.assert_array_equal(found.params["token"]["embedding"], read.params["token"]["embedding"])
    np.testing.assert_array_equal(found.params["head"]["kernel"], member.text_projection.weight.detach().numpy().T)
    assert "logit_scale" in found.head


def test_an_image_classifier_comes_in_and_goes_out(torch, store, tmp_path):
    import transformers

    store, _, _ = store
    config = {**whole().config.to_dict(), "num_labels": 3}
    torch.manual_seed(0)
    theirs = transformers.CLIPForImageClassification(transformers.CLIPConfig(**config)).eval()
    theirs.vision_model.load_state_dict(whole().vision_model.state_dict())
    theirs.save_pretrained(tmp_path / "member")
    incoming = read_member(tmp_path / "member", store.checkpoint())
    assert set(incoming.head) == {"classifier.weight", "classifier.bias"}
    head = stored_classifier(incoming.head, json.loads(json.dumps(dict(incoming.about))))
    leaf = flatten(incoming.params).__getitem__
    write_folder(store.model, leaf, PROCESSOR, tmp_path / "out", head=head, companions=store.companions())
    again, info = type(theirs).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    with torch.no_grad():
        found, expected = (model(_channels_first(torch, _images())).logits for model in (again.eval(), theirs))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_another_vision_tower_is_refused(store, tiny, tmp_path):
    store, _, _ = store
    from transformers import CLIPConfig, CLIPModel

    vision = {**VISION, "hidden_act": "gelu"}
    write_whole(tiny, tmp_path / "other", CLIPModel(CLIPConfig(vision_config=vision, text_config=TEXT)))
    with pytest.raises(WsrError, match=r"config hidden_act is 'gelu' there .* shape of visual_projection"):
        read_member(tmp_path / "other", store.checkpoint())
    changed = load_file(tmp_path / "other" / "model.safetensors")
    changed["vision_model.encoder.layers.9.mlp.fc1.bias"] = np.zeros(3, np.float32)
    save_file(changed, tmp_path / "other" / "model.safetensors")
    with pytest.raises(WsrError, match=r"unexpected vision_model\.encoder\.layers\.9\.mlp\.fc1\.bias"):
        models.load(str(tmp_path / "other"))


# Published files, sizes and refusals


def test_published_files_are_read(tmp_path):
    # With the keys of openai/clip-vit-base-patch32, which are those of an old version.
    old = {"attention_dropout": 0.0, "dropout": 0.0, "return_dict": True, "torchscript": False, "top_k": 50}
    vision = {**old, "model_type": "clip_vision_model", "hidden_size": 768, "patch_size": 32, "image_size": 224}
    text = {**old, "model_type": "clip_text_model", "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    config = {"model_type": "clip", "architectures": ["CLIPModel"], "logit_scale_init_value": 2.6592}
    config |= {"projection_dim": 512, "vision_config": vision, "text_config": text, "vision_config_dict": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    name, read = read_config(tmp_path)
    model = models.build(name, {**read, "projection": True, "pooling": "projection"})
    assert (name, model.max_length, model.hidden, model.reads) == ("clip_vision", 50, 512, "images")
    shapes = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
    assert sum(leaf.size for leaf in shapes) == 87_456_000 + 768 * 512  # CLIP ViT-B/32's visual tower has 87.8 million
    name, read = read_config(tmp_path, "clip_text")
    text_model = models.build(name, {**read, "projection": True, "pooling": "eos"})
    assert (text_model.max_length, text_model.hidden, text_model.config["eos_token_id"]) == (77, 512, 2)
    published = {"crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3}
    published |= {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "image_mean": [0.48, 0.46, 0.41]}
    published |= {"image_std": [0.27, 0.26, 0.28]}
    for file, content in {
        "processor_config.json": {"processor_class": "CLIPProcessor", "image_processor": published},
        "preprocessor_config.json": published,
    }.items():
        (tmp_path / file).write_text(json.dumps(content))
        processor = read_processor(tmp_path, model)
        assert processor == CroppingProcessor(224, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), resample=3)
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": "CLIPImageProcessor"}))
    with pytest.raises(WsrError, match="image_processor: expected a JSON object, found str"):
        read_processor(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["ClapModel"], "model_type": "clap"}))
    with pytest.raises(WsrError, match=r"model_type = 'clap' is not supported; known: albert, .*clip, clip_text_model"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("example", "name", "changes", "message"),
    [
        (VISION_EXAMPLE, "clip_vision", {"patch_size": 3}, "image_size = 8 is not a multiple of patch_size = 3"),
        (VISION_EXAMPLE, "clip_vision", {"hidden_act": "mish"}, "hidden_act = 'mish'; known"),
        (VISION_EXAMPLE, "clip_vision", {"projection": False, "pooling": "projection"}, "known: cls, mean$"),
        (TEXT_EXAMPLE, "clip_text", {"eos_token_id": [3, 4]}, "values of the wrong type: eos_token_id"),
    ],
)
def test_configs_that_make_no_tower_are_refused(example, name, changes, message):
    with pytest.raises(WsrError, match=message):
        models.build(name, {**example, **changes})
