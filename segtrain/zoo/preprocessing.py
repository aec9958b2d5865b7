"""What the `preprocessor_config.json` of transformers does with pictures, as overrides of ours."""

from collections.abc import Mapping
from typing import Any

from segtrain.architecture.imagenet import TORCHVISION
from segtrain.errors import UserError

BILINEAR = 2  # of Pillow
TO_UNIT = 1 / 255


def preprocessing(
    config: Mapping[str, Any], inference: str, origin: str
) -> tuple[list[str], list[str]]:
    """Overrides for what a `preprocessor_config.json` does with pictures.

    Args:
        config: the file's content.
        inference: option of `conf/inference` that looks at whole pictures: `whole`, or `panoptic`
            or `masks` for a network that classifies masks.
        origin: what messages call the file.

    Returns:
        For the architecture, where mean and deviation are not those of its backbone; and for the
        inference, where pictures are resized.

    Raises:
        UserError: numbers are missing or make no sense.
    """
    mean, std = config.get("image_mean", [0.0] * 3), config.get("image_std", [1.0] * 3)
    if not config.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    factor = config.get("rescale_factor", TO_UNIT) if config.get("do_rescale", True) else 1.0
    numbers = [*_three(mean, "image_mean", origin), *_three(std, "image_std", origin)]
    if not isinstance(factor, int | float) or factor <= 0 or min(numbers[3:]) <= 0:
        raise UserError(f"{origin}: rescale_factor and image_std have to be above 0")
    scaled = [round(number / (255 * factor), 12) for number in numbers]
    if scaled == [*TORCHVISION.mean, *TORCHVISION.std]:
        return [], _seen(config, inference, origin)
    overlay = f"{{mean:{_list(scaled[:3])},std:{_list(scaled[3:])}}}"
    body = [f"+architecture.backbone.timm_arguments.pretrained_cfg_overlay={overlay}"]
    return body, _seen(config, inference, origin)


def _list(values: list) -> str:
    """As an override has it."""
    return str(values).replace(" ", "")


def _three(values: Any, key: str, origin: str) -> list[float]:
    is_list = isinstance(values, list) and len(values) == 3
    if not is_list or not all(isinstance(value, int | float) for value in values):
        raise UserError(f"{origin}: {key} is {str(values)[:80]}, expected three numbers")
    return [float(value) for value in values]


def _seen(config: Mapping[str, Any], inference: str, origin: str) -> list[str]:
    """Overrides of the inference for the size that pictures are resized to."""
    if not config.get("do_resize", True) or config.get("size") is None:
        return []
    size = config["size"]
    size = {"height": size, "width": size} if isinstance(size, int) else size
    if isinstance(size, Mapping):
        size = {key: side for key, side in size.items() if side is not None}
    names = {"height": "height", "width": "width", "shortest_edge": "short", "longest_edge": "long"}
    fits = isinstance(size, Mapping) and bool(size) and size.keys() <= names.keys() and all(
        type(side) is int and 0 < side <= 16_384 for side in size.values()
    )  # fmt: skip
    if not fits:
        raise UserError(f"{origin}: size is {str(size)[:80]}, expected height and width, or "
                        "shortest_edge, in pixels")  # fmt: skip
    own = _look(config, inference, {names[key]: side for key, side in size.items()})
    is_bilinear = config.get("resample", BILINEAR) == BILINEAR
    return [*own, "inference.resampling=pillow"] if is_bilinear else own


def _look(config: Mapping[str, Any], inference: str, size: Mapping[str, int]) -> list[str]:
    """Overrides for the way that pictures of a size are looked at."""
    sides = f"inference.size={{{','.join(f'{name}:{side}' for name, side in size.items())}}}"
    if inference == "whole" and config.get("do_split_image") is True and "short" in size:
        window = [size["short"]] * 2
        return ["inference=sliding", f"inference.size={{short:{size['short']}}}",
                *(f"inference.window.{key}={_list(window)}" for key in ("crop_size", "stride")),
                "inference.window.average=logits"]  # fmt: skip
    if inference == "whole":
        return ["inference=whole", "inference.pad=false", sides]
    own = [f"inference={inference}", sides]
    # EoMT's are squares; Mask2Former's, which a divisor tells, are as large as others of a batch.
    if config.get("do_pad") is True and "long" in size and config.get("size_divisor") is None:
        own += [f"inference.least_size={_list([size['long']] * 2)}", "inference.fill=black"]
    return own
