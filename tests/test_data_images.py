"""Images from sources to splits and batches: Pillow, sources, splits, hashes, and what is refused."""

import io
import json

import numpy as np
import PIL.Image
import pytest

from wsr.data import Columns, DatasetSpec, load_dataset, register, table
from wsr.data.dataset import SPLITS, hash_splits, joined
from wsr.data.image_processor import FILE, CroppingProcessor, ImageProcessor, read_image_processor
from wsr.data.image_sources import Digits
from wsr.data.images import ImageSplit
from wsr.data.packing import evaluation_batches, in_text_order, rows_a_step, training_batches
from wsr.data.records import Records
from wsr.errors import WsrError
from wsr.models import load
from wsr.models.features import refuse_unfit
from wsr.models.huggingface.config import read_json
from wsr.training import Job, Recipe
from wsr.training.batches import group_batches

GREY = ImageProcessor(size=8, mean=(0.5,), std=(0.5,))
SMALL = {"finetune": 32, "probe": 8, "validation": 8, "test": 8}
COLOURED = ImageProcessor(size=6, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


def _pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _write_folder(folder, count=20, side=8):
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            seed = number + count * (label == "dog")
            PIL.Image.fromarray(_pixels(seed, side, side, 3)).save(folder / label / f"{number:02}.png")
    return folder


@pytest.mark.parametrize("processor", [GREY, COLOURED])
@pytest.mark.parametrize("shape", [(8, 8), (10, 14, 3)])
def test_images_are_prepared_as_transformers_does_with_pillow(processor, shape, tmp_path):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    processor.save_pretrained(tmp_path)
    theirs = ViTImageProcessorPil.from_pretrained(tmp_path)
    image = PIL.Image.fromarray(_pixels(0, *shape)).convert("L" if processor.channels == 1 else "RGB")
    expected = np.stack(theirs(image).pixel_values).transpose(0, 2, 3, 1)
    found = processor.normalise(processor.to_pixels(image)[None])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert read_image_processor(tmp_path / FILE, read_json(tmp_path / FILE), size=processor.size,
                                channels=processor.channels) == processor  # fmt: skip


@pytest.mark.parametrize("shape", [(6, 6, 3), (9, 17, 3), (31, 12, 3), (4, 5, 3), (6, 9, 3)])
def test_clip_crops_the_middle_as_transformers_does_with_pillow(shape, tmp_path):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CroppingProcessor(size=6, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), resample=3)
    processor.save_pretrained(tmp_path)
    image = PIL.Image.fromarray(_pixels(0, *shape))
    expected = np.stack(CLIPImageProcessorPil.from_pretrained(tmp_path)(image).pixel_values).transpose(0, 2, 3, 1)
    found = processor.normalise(processor.to_pixels(image)[None])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    content = read_json(tmp_path / FILE)
    assert read_image_processor(tmp_path / FILE, content, size=6, channels=3) == processor
    with pytest.raises(WsrError, match="do_center_crop = False"):
        read_image_processor(tmp_path / FILE, {**content, "do_center_crop": False}, size=6, channels=3)


def test_files_of_transformers_are_read(tmp_path):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    ViTImageProcessorPil(size={"height": 6, "width": 6}, image_mean=[0.1, 0.2, 0.3], do_rescale=False).save_pretrained(
        tmp_path
    )
    read = read_image_processor(tmp_path / FILE, read_json(tmp_path / FILE), size=6, channels=3)
    assert read == ImageProcessor(6, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), rescale_factor=1.0)
    plain = read_image_processor(tmp_path / FILE, {"size": 6, "do_normalize": False}, size=6, channels=1)
    assert plain == ImageProcessor(6, (0.0,), (1.0,))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"size": {"height": 8, "width": 9}}, "size = "),
        ({"size": 6, "do_center_crop": True, "crop_size": 6}, "do_center_crop = True"),
        ({"size": 6, "image_mean": [0.5, 0.5]}, r"image_mean = \[0.5, 0.5\]"),
        ({"size": 6, "image_std": 0.0}, "image_std = 0.0"),
        ({"size": 6, "image_processor_type": "BeitImageProcessor"}, "image_processor_type = 'BeitImageProcessor'"),
        ({"size": 6, "image_processor_type": "CLIPImageProcessor"}, "crop_size = {'height': 224, 'width': 224}"),
        ({"size": 6, "resample": "bicubic"}, "resample = 'bicubic'"),
    ],
)
def test_what_is_not_understood_of_a_processor_is_named(content, message, tmp_path):
    with pytest.raises(WsrError, match=f"6x6 pixels and 3 channels: .*{message}"):
        read_image_processor(tmp_path / FILE, json.loads(json.dumps(content)), size=6, channels=3)


def test_a_folder_of_images_goes_to_four_disjoint_splits_with_its_labels(tmp_path):
    folder = _write_folder(tmp_path / "pets")
    (folder / "dog" / "notes.txt").write_text("a dog")
    dataset = load_dataset(folder, GREY)
    assert (dataset.name, dataset.label_names, dataset.classes) == ("pets", ("cat", "dog"), 2)
    assert any("left out 1 files that are not images" in note for note in dataset.notes)
    found = {}
    for split in dataset.splits.values():
        for image, label in zip(split.pixel_values, split.labels, strict=True):
            found[image.tobytes()] = int(label)
    assert sum(map(len, dataset.splits.values())) == len(found) == 40
    for path in folder.glob("*/*.png"):
        image = GREY.normalise(GREY.to_pixels(PIL.Image.open(path))[None])[0]
        assert found[image.tobytes()] == ("cat", "dog").index(path.parent.name)
    again = load_dataset(folder, GREY)
    assert dataset.content_hash == again.content_hash != load_dataset(folder, COLOURED).content_hash


def test_a_source_with_roles_keeps_them_and_equal_images_stay_on_one_side(tmp_path):
    train = _write_folder(tmp_path / "pets" / "train")
    held_out = tmp_path / "pets" / "test" / "dog"
    held_out.mkdir(parents=True)
    with PIL.Image.open(train / "cat" / "03.png") as image:
        image.save(held_out / "the_same.bmp")  # other bytes, the same image
    dataset = load_dataset(tmp_path / "pets", GREY)
    assert len(dataset.splits["test"]) == 1
    assert sum(map(len, dataset.splits.values())) == 40
    assert any("left out 1 images of train" in note for note in dataset.notes)


def test_copies_of_an_image_stay_in_one_split(tmp_path):
    folder = _write_folder(tmp_path / "pets")
    for number in range(20):
        path = folder / "cat" / f"{number:02}.png"
        path.with_name(f"copy_{number}.png").write_bytes(path.read_bytes())
    splits = load_dataset(folder, GREY).splits
    sets = [{image.tobytes() for image in split.pixel_values} for split in splits.values()]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 40
    assert sum(map(len, splits.values())) == 60


def test_cells_may_be_paths_bytes_or_arrays(monkeypatch):
    pixels = _pixels(0, 8, 8)
    content = io.BytesIO()
    PIL.Image.fromarray(pixels).save(content, "PNG")
    noise = [_pixels(number, 8, 8, 1) for number in range(1, 30)]

    class Source:
        def read(self):
            cells = [pixels, content.getvalue(), {"bytes": content.getvalue(), "path": None}, *noise]
            labels = [number % 2 for number in range(len(cells))]
            return {"train": Records("cells", {"image": cells, "label": labels}, range(1, len(cells) + 1))}

    monkeypatch.setattr(table, "_TABLE", dict(table._TABLE))
    register(DatasetSpec("cells", "cells", Source(), Columns("image"), reads="images"))
    dataset = load_dataset("cells", GREY)
    assert any("2 repeated images kept" in note for note in dataset.notes)


def test_images_of_the_hubs_library_are_read(tmp_path):
    import datasets

    images = [PIL.Image.fromarray(_pixels(number, 8, 8)) for number in range(30)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})
    columns = {"image": images, "label": [number % 2 for number in range(30)]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "saved"))
    dataset = load_dataset(tmp_path / "saved", GREY)
    assert dataset.label_names == ("even", "odd")
    expected = {GREY.normalise(GREY.to_pixels(image)[None]).tobytes(): n % 2 for n, image in enumerate(images)}
    for split in dataset.splits.values():
        assert [expected[image.tobytes()] for image in split.pixel_values] == split.labels.tolist()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"no image"), "03.png: cannot be read as an image"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "03.png: cannot be read as an image"),
        (
            lambda path: PIL.Image.fromarray(_pixels(0, 8, 8).astype(np.uint16) * 200).save(path),
            "03.png: expected 8 bits per channel, found mode I;16",
        ),
    ],
)
def test_a_bad_image_is_named_by_its_file(tmp_path, spoil, message):
    folder = _write_folder(tmp_path / "pets")
    spoil(folder / "cat" / "03.png")
    with pytest.raises(WsrError, match=message):
        load_dataset(folder, GREY)


def test_a_size_that_must_not_be_changed_is_refused(tmp_path):
    with pytest.raises(WsrError, match=r"expected 8x8 pixels, found 6x6; .* do_resize"):
        load_dataset(_write_folder(tmp_path / "pets", side=6), ImageProcessor(8, (0.5,), (0.5,), resize=False))


def test_texts_for_a_model_of_images_and_the_reverse_are_refused(tiny, dataset, tmp_path):
    vit = load("tiny_vit")
    with pytest.raises(WsrError, match="made_up_a1 is a dataset of text, but the model reads images"):
        load_dataset("made_up_a1", vit.processor)
    with pytest.raises(WsrError, match="digits is a dataset of images, but the model reads text"):
        load_dataset("digits", tiny.processor)
    with pytest.raises(WsrError, match="pets is a dataset of images, but the model reads text"):
        load_dataset(_write_folder(tmp_path / "pets"), tiny.processor)
    with pytest.raises(WsrError, match="tiny_vit reads images, but the dataset holds text"):
        refuse_unfit(vit.model, dataset.splits["test"])


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    found = Digits().read()["train"]
    expected = load_digits()
    assert len(found) == 1797
    np.testing.assert_allclose(np.stack(found.columns["image"]) * (16 / 255), expected.images, atol=0.04)
    np.testing.assert_array_equal(found.columns["label"], expected.target)
    dataset = load_dataset("digits", GREY, sizes={"finetune": 100, "test": 50})
    assert (dataset.classes, dataset.family) == (10, "digits")
    assert dataset.splits["finetune"].pixel_values.shape == (100, 8, 8, 1)


def test_made_up_images_of_a_family_share_their_classes_and_nothing_else():
    means = []
    for name in ("made_up_images_a1", "made_up_images_a2", "made_up_images_b1"):
        split = load_dataset(name, GREY).splits["finetune"]
        classes = [split.pixel_values[split.labels == label].mean(axis=0).ravel() for label in (0, 1)]
        means.append(classes[1] - classes[0])
    similar = np.corrcoef(means)
    assert similar[0, 1] > 0.8
    assert abs(similar[0, 2]) < 0.5


@pytest.fixture
def split():
    random = np.random.default_rng(0)
    return ImageSplit(random.standard_normal((11, 4, 4, 2)).astype(np.float32), np.arange(11, dtype=np.int32))


def test_batches_hold_every_image_once_in_a_known_place(split):
    batches = evaluation_batches(split, rows=4, packed=False)
    assert batches.inputs["pixel_values"].shape == (3, 4, 4, 4, 2)
    assert batches.tokens == 11
    np.testing.assert_array_equal(in_text_order(batches.inputs["pixel_values"], batches.index, 11), split.pixel_values)
    np.testing.assert_array_equal(in_text_order(batches.labels, batches.index, 11), split.labels)
    assert not batches.inputs["pixel_values"][batches.index < 0].any()
    assert rows_a_step(split, 4, packed=False) in (3, 4, 5)


def test_training_batches_are_whole_and_reshuffled(split):
    batches = training_batches(split, batch_size=4, steps=5, generator=np.random.default_rng(0), packed=False)
    # Numbers and no images: each epoch would hold them all again.
    assert batches.inputs["images"].shape == (5, 4)
    np.testing.assert_array_equal(batches.inputs["images"], batches.index)
    np.testing.assert_array_equal(np.sort(batches.index.ravel()[:11]), np.arange(11))
    np.testing.assert_array_equal(batches.labels, split.labels[batches.index])


def test_members_of_one_dataset_share_their_images():
    data = [load_dataset(name, GREY, sizes=SMALL) for name in ("made_up_images_a1", "made_up_images_a2")]
    recipe = Recipe(batch_size=8, epochs=3.0, warmup=0.006)
    jobs = [Job(data[0], 0, recipe), Job(data[1], 0, recipe), Job(data[0], 1, recipe), Job(data[0], 1, recipe, size=16)]
    vit = load("tiny_vit")
    encoder, plan = group_batches(vit.model, vit.params, jobs)
    (table,) = plan["shared"].values()
    assert table.shape == (32 + 32 + 16, 8, 8, 1)
    for job, numbers, labels in zip(jobs, plan["inputs"]["images"], plan["labels"], strict=True):
        own = {image.tobytes(): label for image, label in zip(job.split.pixel_values, job.split.labels, strict=True)}
        found = np.asarray(table)[numbers.ravel()]
        assert [own[image.tobytes()] for image in found] == labels.ravel().tolist()
    batch = {"images": plan["inputs"]["images"][1, 0, 0]}
    direct = vit.model.encode(vit.params, {"pixel_values": np.asarray(table)[batch["images"]]})
    np.testing.assert_array_equal(encoder.encode({**vit.params, **plan["shared"]}, batch), direct)


def test_splits_are_taken_joined_and_hashed(split):
    first, second = split.take(np.array([3, 1])), split.take(np.arange(4, 9))
    np.testing.assert_array_equal(first.labels, [3, 1])
    whole = joined([first, second])
    np.testing.assert_array_equal(whole.pixel_values, split.pixel_values[[3, 1, 4, 5, 6, 7, 8]])
    splits = dict.fromkeys(SPLITS, split)
    hashes = {hash_splits(splits), hash_splits({**splits, "test": first})}
    # The same bytes in another shape are another content.
    reshaped = ImageSplit(split.pixel_values.reshape(11, 2, 8, 2), split.labels)
    hashes.add(hash_splits({**splits, "test": reshaped}))
    assert len(hashes) == 3
