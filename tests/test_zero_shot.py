"""Zero-shot heads of CLIP and SigLIP against transformers' own logits, from a store and from the command line."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest
from clip_world import moved, whole, write_whole
from safetensors.numpy import load_file, save_file
from test_models_siglip import PROCESSOR as SIGLIP_PROCESSOR
from test_models_siglip import TEXT as SIGLIP_TEXT
from test_models_siglip import VISION as SIGLIP_VISION

from wsr import models
from wsr.cli import main
from wsr.data import load_dataset
from wsr.engine.zero_shot import evaluate_zero_shot, read_templates, zero_shot_head
from wsr.errors import WsrError
from wsr.exchange.importing import import_model
from wsr.region.region import Region
from wsr.store import Store

pytestmark = pytest.mark.torch
CLASSES = ("cat", "dog_hut", "elk")
TEMPLATES = ("a {}.", "{} no 1")


@pytest.fixture(scope="module", autouse=True)
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@pytest.fixture(scope="module")
def world(tiny, tmp_path_factory):
    """A store of two vision towers of one CLIP, the members as transformers has them, and a folder of images."""
    place = tmp_path_factory.mktemp("zero_shot")
    write_whole(tiny, place / "base")
    store = Store.create_for(place / "store", models.load(str(place / "base")))
    members = {name: moved(whole(), ("vision_model", "visual_projection"), seed) for seed, name in enumerate("ab")}
    for name, model in members.items():
        import_model(write_whole(tiny, place / name, model), store)
    random = np.random.default_rng(0)
    for label in CLASSES:
        (place / "images" / label).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 256, (14, 17, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(place / "images" / label / f"{number}.png")
    data = load_dataset(place / "images", store.processor(), at_most=True)
    assert data.label_names == CLASSES
    return store, members, data, place


def _their_logits(torch, tiny, model, pixel_values, templates):
    """The logits of images, by transformers: of one prompt a class, or with averaged prompts."""
    prompts = [template.format(name.replace("_", " ")) for name in CLASSES for template in templates]
    tokens = tiny.processor(prompts, padding=True, return_tensors="pt")
    tokens.pop("token_type_ids", None)
    pixels = torch.tensor(pixel_values.transpose(0, 3, 1, 2))
    with torch.no_grad():
        if len(templates) == 1:
            return model(pixel_values=pixels, **tokens).logits_per_image.numpy()
        texts = model.get_text_features(**tokens).pooler_output
        texts = (texts / texts.norm(dim=-1, keepdim=True)).reshape(len(CLASSES), len(templates), -1).mean(dim=1)
        texts = texts / texts.norm(dim=-1, keepdim=True)
        images = model.get_image_features(pixels).pooler_output
        images = images / images.norm(dim=-1, keepdim=True)
        return (model.logit_scale.exp() * images @ texts.T).numpy()


@pytest.mark.parametrize("templates", [TEMPLATES[:1], TEMPLATES])
def test_losses_and_predictions_are_those_of_transformers(torch, tiny, world, templates):
    store, members, data, _ = world
    head = zero_shot_head(store.checkpoint(), data.label_names, templates)
    region = Region.from_store(store)
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    found = evaluate_zero_shot(region, points, data, head)
    test = data.splits["test"]
    for number, model in enumerate([whole(), *members.values()]):
        logits = _their_logits(torch, tiny, model, test.pixel_values, templates).astype(np.float64)
        expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(test)), test.labels]
        np.testing.assert_allclose(found.losses[number], expected, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(found.predictions[number], logits.argmax(axis=1))
    assert np.abs(found.losses[3] - found.losses[1]).max() > 1e-4
    assert found.scores[1] == pytest.approx((found.predictions[1] == test.labels).mean())


@pytest.fixture(scope="module")
def siglip(torch, tiny, tmp_path_factory):
    """A store of one vision tower of a SigLIP, and base and member as transformers has them."""
    from transformers import SiglipConfig, SiglipModel

    place = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    config = SiglipConfig(vision_config=SIGLIP_VISION, text_config={**SIGLIP_TEXT, "vocab_size": 112})
    base = SiglipModel(config).eval()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        base.logit_scale.fill_(1.5)
        base.logit_bias.fill_(-2.0)
    member = moved(base, ("vision_model",), 1)
    for name, model in (("base", base), ("a", member)):
        for part in (model, SIGLIP_PROCESSOR, tiny.processor):
            part.save_pretrained(place / name)
    store = Store.create_for(place / "store", models.load(str(place / "base")))
    import_model(place / "a", store)
    return store, base, member, place


def test_losses_and_predictions_of_siglip_are_those_of_transformers(torch, tiny, world, siglip):
    _, _, data, _ = world
    store, base, member, _ = siglip
    head = zero_shot_head(store.checkpoint(), data.label_names, TEMPLATES[:1])
    assert head.bias == -2.0
    found = evaluate_zero_shot(Region.from_store(store), np.array([[0.0], [1.0]]), data, head)
    test = data.splits["test"]
    prompts = [TEMPLATES[0].format(name.replace("_", " ")) for name in CLASSES]
    # Padded to the full length of the tower with the tokenizer's padding, which is not that of the config.
    assert tiny.processor.pad_token_id != base.config.text_config.pad_token_id
    ids = tiny.processor(prompts, padding="max_length", max_length=20, return_tensors="pt")["input_ids"]
    pixels = torch.tensor(test.pixel_values.transpose(0, 3, 1, 2))
    for number, model in enumerate((base, member)):
        with torch.no_grad():
            logits = model(input_ids=ids, pixel_values=pixels).logits_per_image
            signs = 2 * torch.nn.functional.one_hot(torch.tensor(test.labels).long(), len(CLASSES)) - 1
            expected = -torch.nn.functional.logsigmoid(signs * logits).sum(dim=1)
        np.testing.assert_allclose(found.losses[number], expected.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_array_equal(found.predictions[number], logits.numpy().argmax(axis=1))
    assert np.abs(found.losses[1] - found.losses[0]).max() > 1e-4


def test_a_siglip_without_a_number_or_that_pads_on_the_left_has_no_head(tiny, siglip, tmp_path):
    _, _, _, place = siglip
    base = models.load(str(place / "base"))
    shutil.copytree(place / "base", tmp_path / "left")
    path = tmp_path / "left" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    with pytest.raises(WsrError, match="reads padding on the right of a text; its tokenizer pads on the left"):
        zero_shot_head(models.load(str(tmp_path / "left")), CLASSES)
    shutil.copytree(place / "base", tmp_path / "without")
    weights = tmp_path / "without" / "model.safetensors"
    save_file({name: own for name, own in load_file(weights).items() if name != "logit_bias"}, weights)
    with pytest.raises(WsrError, match="no logit_bias in the file; expected a whole SigLIP"):
        zero_shot_head(models.load(str(tmp_path / "without")), CLASSES)
    assert base.model.name == "siglip_vision"


def test_the_command_line_scores_all_points_without_a_probe(world, tmp_path, capsys):
    store, _, _, place = world
    (tmp_path / "prompts.txt").write_text("\n".join(TEMPLATES) + "\n")
    command = ["evaluate", f"--store={store.path}", f"--on={place / 'images'}", "--loss=zero_shot", "--interior=1"]
    assert main([*command, f"--templates={tmp_path / 'prompts.txt'}", f"--out={tmp_path / 'rows.jsonl'}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["metric"] for row in rows} == {"zero_shot_loss", "zero_shot_accuracy"}
    assert {row["group"] for row in rows} == {"pretrained", "member", "centroid", "interior"}
    assert "probe" not in capsys.readouterr().out


def test_what_has_no_zero_shot_head_is_refused(tiny, world, tmp_path):
    store, _, data, place = world
    base = store.checkpoint()
    with pytest.raises(WsrError, match=r"expected prompts with \{\} where the class stands, found \['a photo'\]"):
        zero_shot_head(base, CLASSES, ["a photo"])
    with pytest.raises(WsrError, match="names no classes"):
        zero_shot_head(base, ())
    with pytest.raises(WsrError, match="1 of 1 prompts are longer than 20 tokens"):
        zero_shot_head(base, ["a name of many letters"])
    with pytest.raises(WsrError, match="need a whole CLIP or SigLIP as the base"):
        zero_shot_head(models.load("tiny_vit"), CLASSES)
    with pytest.raises(WsrError, match="has 3 classes, but the head has 2"):
        evaluate_zero_shot(Region.from_store(store), np.eye(2), data, zero_shot_head(base, CLASSES[:2], TEMPLATES))
    with pytest.raises(WsrError, match=r"neither a prompt with \{\} nor a readable text file"):
        read_templates(str(tmp_path / "none.txt"))
    # The vision tower alone has no texts to make a head of.
    tensors = load_file(place / "base" / "model.safetensors")
    write_whole(tiny, tmp_path / "alone")
    save_file({name: own for name, own in tensors.items() if "vis" in name}, tmp_path / "alone" / "model.safetensors")
    with pytest.raises(WsrError, match="no tensors of clip_text; expected a folder of a whole model"):
        zero_shot_head(models.load(str(tmp_path / "alone")), CLASSES)


def test_members_with_text_towers_of_their_own_are_refused(tiny, world, tmp_path):
    _, _, data, place = world
    store = Store.create_for(tmp_path / "store", models.load(str(place / "base")))
    import_model(write_whole(tiny, tmp_path / "both", moved(whole(), ("text_model.final", "vision_model"), 5)), store)
    head = zero_shot_head(store.checkpoint(), CLASSES, TEMPLATES)
    with pytest.raises(WsrError, match="both: fine-tuned with a text tower other than the base's"):
        evaluate_zero_shot(Region.from_store(store), np.eye(1), data, head)
