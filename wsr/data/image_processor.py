"""Prepares images for a model, as its ``preprocessor_config.json`` says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from wsr.errors import WsrError

FILE = "preprocessor_config.json"
BILINEAR = 2
"""Pillow's number of the bilinear filter, as in the file."""
BICUBIC = 3
"""Pillow's number of the bicubic filter."""


@dataclass(frozen=True)
class ImageProcessor:
    """Resizes images to a square, scales and normalises them, as those of ViT and SigLIP in ``transformers`` do."""

    size: int
    """Height and width, in pixels."""
    mean: tuple[float, ...]
    """Mean of each channel: one number for grey images, three for colour images."""
    std: tuple[float, ...]
    """Standard deviation of each channel."""
    rescale_factor: float = 1 / 255
    """Factor by which pixels are multiplied before normalisation."""
    resample: int = BILINEAR
    """Pillow's number of the resampling filter."""
    resize: bool = True
    """Whether images of other sizes are resized; if not, they raise an error."""

    @property
    def channels(self) -> int:
        """Number of channels, 1 or 3."""
        return len(self.mean)

    def to_pixels(self, image: Any) -> UInt8[np.ndarray, "height width channels"]:
        """Returns the pixels of a Pillow image, with the size and channels of the model.

        Args:
          image: a Pillow image.

        Returns:
          Pixel values from 0 to 255.

        Raises:
          WsrError: if the image has more than 8 bits per channel, or needs resizing and ``resize`` is false.
        """
        # Pillow would clip values above 255.
        if image.mode.startswith(("I", "F")):
            raise WsrError(f"expected 8 bits per channel, found mode {image.mode}; convert the image")
        image = self._sized(image.convert("L" if self.channels == 1 else "RGB"))
        return np.asarray(image, np.uint8).reshape(self.size, self.size, self.channels)

    def _sized(self, image: Any) -> Any:
        wanted = (self.size, self.size)
        if image.size == wanted:
            return image
        if not self.resize:
            found = "x".join(map(str, image.size))
            raise WsrError(f"expected {self.size}x{self.size} pixels, found {found}; {FILE} says do_resize = false")
        return image.resize(wanted, resample=self.resample)

    def normalise(
        self, pixels: UInt8[np.ndarray, "images height width channels"]
    ) -> Float32[np.ndarray, "images height width channels"]:
        """Returns normalised pixels: ``(pixels * rescale_factor - mean) / std`` for each channel."""
        mean, std = (np.asarray(values, np.float32) for values in (self.mean, self.std))
        values = pixels * np.float32(self.rescale_factor)
        values -= mean  # in place: a test split may have gigabytes
        values /= std
        return values

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes ``preprocessor_config.json`` into a folder, as ``transformers.AutoImageProcessor`` reads it."""
        content = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": self.resize,
            "size": {"height": self.size, "width": self.size},
            **self._other_settings(),
            "resample": self.resample,
            "do_rescale": True,
            "rescale_factor": self.rescale_factor,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        (Path(folder) / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _other_settings(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class CroppingProcessor(ImageProcessor):
    """Resizes the shorter side of images and cuts the square in the middle, as CLIP's processor does."""

    def _sized(self, image: Any) -> Any:
        width, height = image.size
        shorter = min(width, height)
        wide, high = (self.size if side == shorter else int(self.size * side / shorter) for side in (width, height))
        if (wide, high) != (width, height):
            image = image.resize((wide, high), resample=self.resample)
        left, top = (wide - self.size) // 2, (high - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))

    def _other_settings(self) -> dict[str, Any]:
        return {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": self.size},
            "do_center_crop": True,
            "crop_size": {"height": self.size, "width": self.size},
            "do_convert_rgb": True,
        }


def read_image_processor(path: Path, content: Mapping[str, Any], *, size: int, channels: int) -> ImageProcessor:
    """Returns the image processor that a ``preprocessor_config.json`` describes.

    Args:
      path: the file, for error messages.
      content: its JSON.
      size: height and width of the model's images, in pixels.
      channels: channels of the model's images.

    Raises:
      WsrError: naming every setting that is not supported or does not fit the model.
    """
    given = {name: value for name, value in content.items() if value is not None}
    kind = given.get("feature_extractor_type", given.get("image_processor_type"))
    crops = kind in _CROPPING_TYPES
    defaults = _DEFAULTS_OF_CROPPING if crops else _DEFAULTS_OF_SIGLIP if kind in _SIGLIP_TYPES else _DEFAULTS
    found = {**defaults, **given}
    if not found["do_rescale"]:
        found["rescale_factor"] = 1.0
    if not found["do_normalize"]:
        found |= {"image_mean": 0.0, "image_std": 1.0}
    mean, std = (_of_channels(found[name], channels) for name in ("image_mean", "image_std"))
    understood = {
        "image_processor_type": kind is None or kind in (*_TYPES, *_CROPPING_TYPES, *_SIGLIP_TYPES),
        "size": not found["do_resize"] or found["size"] in (size, {"height": size, "width": size}),
        "resample": found["resample"] in range(6),
        "rescale_factor": _is_number(found["rescale_factor"]),
        "image_mean": mean is not None,
        "image_std": std is not None and all(std),
    }
    if crops:
        understood |= {
            "size": found["do_resize"] and found["size"] in (size, {"shortest_edge": size}),
            "do_center_crop": bool(found["do_center_crop"]),
            "crop_size": found["crop_size"] in (size, {"height": size, "width": size}),
        }
    # Any other setting may switch on a step that is not implemented here.
    wrong = [name for name, value in found.items() if value and name not in defaults.keys() | _HARMLESS]
    wrong += [name for name, fine in understood.items() if not fine]
    if wrong or mean is None or std is None:
        named = ", ".join(f"{name} = {found[name]!r}" for name in sorted(wrong))
        raise WsrError(f"{path}: not understood for a model of {size}x{size} pixels and {channels} channels: {named}")
    made = CroppingProcessor if crops else ImageProcessor
    return made(size, mean, std, found["rescale_factor"], found["resample"], bool(found["do_resize"]))


_DEFAULTS: Mapping[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": BILINEAR,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": 0.5,
    "image_std": 0.5,
}
"""The defaults of ``ViTImageProcessor``."""
_DEFAULTS_OF_CROPPING: Mapping[str, Any] = {
    **_DEFAULTS,
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 224},
    "resample": BICUBIC,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""The defaults of ``CLIPImageProcessor``."""
_DEFAULTS_OF_SIGLIP: Mapping[str, Any] = {**_DEFAULTS, "resample": BICUBIC}
"""The defaults of ``SiglipImageProcessor``."""
_TYPES = ("ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor")
_CROPPING_TYPES = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
_SIGLIP_TYPES = ("SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil")
# Settings that do not change the pixels, or only matter if another setting switches a step on.
_HARMLESS = frozenset(
    (
        *("feature_extractor_type", "processor_class", "_valid_processor_keys", "data_format", "input_data_format"),
        *(
            "return_tensors",
            "device",
            "disable_grouping",
            "do_convert_rgb",
            "default_to_square",
            "crop_size",
            "pad_size",
        ),
    )
)


def _of_channels(value: Any, channels: int) -> tuple[float, ...] | None:
    """Returns one number for each channel, or None if ``value`` does not give one."""
    numbers = value if isinstance(value, list) else [value] * channels
    fine = len(numbers) == channels and all(map(_is_number, numbers))
    return tuple(map(float, numbers)) if fine else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
