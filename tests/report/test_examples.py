import base64
import io

import numpy as np
import pytest
from PIL import Image

from segtrain.dataset.instances import target_from_masks
from segtrain.dataset.labels import SHAPES_INSTANCES, VOC
from segtrain.report.examples import PICTURE_BYTES, choose, semantic_keys, webp
from segtrain.report.panels import EXTRA, MISSED, instance_panels, proposal_panels, semantic_panels


def test_best_worst_and_random_are_different_images():
    scores = np.random.default_rng(0).random(100)
    chosen = choose(scores, 4, seed=1)
    assert [len(chosen[kind]) for kind in ("best", "worst", "random")] == [4, 4, 4]
    assert len({index for some in chosen.values() for index in some}) == 12
    assert scores[chosen["best"]].min() > scores[chosen["worst"]].max()
    assert chosen["best"][0] == scores.argmax()
    assert chosen["worst"][0] == scores.argmin()
    assert chosen == choose(scores, 4, seed=1)
    assert chosen["random"] != choose(scores, 4, seed=2)["random"]


@pytest.mark.parametrize("count", range(9))
def test_small_splits(count):
    chosen = choose(np.linspace(0, 1, count), 4, seed=0)
    all_of_them = [index for some in chosen.values() for index in some]
    assert len(all_of_them) == len(set(all_of_them)) <= count
    assert (len(chosen["best"]) > 0) == (count > 0)


def test_images_without_a_score_are_not_chosen():
    scores = np.array([np.nan, 0.5, np.nan, 0.1, 0.9])
    chosen = choose(scores, 4, seed=0)
    assert chosen == {"best": [4], "worst": [3], "random": [1]}
    assert choose(np.full(5, np.nan), 4, seed=0) == {"best": [], "worst": [], "random": []}


def test_errors_are_marked_and_void_is_not():
    image = np.full((400, 600, 3), 100, np.uint8)
    truth, prediction = np.full((400, 600), 15, np.uint8), np.full((400, 600), 15)
    prediction[:, :200] = 3
    truth[:200] = 255
    panels = semantic_panels(image, truth, prediction, VOC, 600)
    assert list(panels) == ["image", "truth", "prediction", "errors"]
    assert (panels["image"] == image).all()
    errors = panels["errors"].astype(int)
    assert errors[300, 100, 0] - errors[300, 100, 2] > 150  # orange
    assert np.ptp(errors[300, 500]) == 0  # right
    assert np.ptp(errors[100, 100]) == 0  # void
    assert {panel.shape for panel in panels.values()} == {(400, 600, 3)}
    assert semantic_panels(image, truth, prediction, VOC, 300)["errors"].shape == (200, 300, 3)
    tiny = semantic_panels(image[:20, :30], truth[:20, :30], prediction[:20, :30], VOC, 512)
    assert tiny["truth"].shape[1] == 320


def test_keys_name_the_classes_of_both():
    truth, prediction = np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 7]])
    keys = semantic_keys(truth.astype(np.uint8), prediction, VOC)
    assert [key.text for key in keys] == [f"{VOC.names[0]} 50", f"{VOC.names[1]} 50"]


def scene():
    image = np.full((200, 300, 3), 100, np.uint8)
    masks = np.zeros((2, 200, 300), bool)
    masks[0, 50:150, 20:100] = masks[1, 50:150, 200:280] = True
    truth = target_from_masks(masks, [1, 2], np.array([False, False]), 0)
    found = {
        "boxes": np.array([[20, 50, 100, 150], [110, 50, 190, 150]], np.float32),
        "scores": np.array([0.9, 0.8], np.float32),
        "labels": np.array([1, 3]),
        "masks": np.ones((2, 28, 28), np.float32),
    }
    return image, truth, found


def in_whole_image(found):
    """The same scene's detections with masks of the whole image."""
    masks = np.zeros((2, 200, 300), bool)
    masks[0, 50:150, 20:100] = masks[1, 50:150, 110:190] = True
    return found | {"masks": masks, "frames": "image"}


@pytest.mark.parametrize("framed", [dict, in_whole_image])
def test_errors_of_instances(framed):
    image, truth, found = scene()
    panels = instance_panels(image, truth, framed(found), SHAPES_INSTANCES, 300)
    errors = panels["errors"].astype(int)
    assert np.ptp(errors[100, 60]) == 0  # found
    for column, colour in ((150, EXTRA), (240, MISSED)):
        assert np.abs(errors[100, column] - colour).max() < 40


def test_best_fits_of_proposals():
    panels = proposal_panels(*scene(), SHAPES_INSTANCES, 300, limit=100)
    assert list(panels) == ["image", "truth", "prediction", "best fits"]
    image, truth, found = scene()
    none = {key: value[:0] for key, value in found.items()}
    assert (proposal_panels(image, truth, none, SHAPES_INSTANCES, 300, 100)["best fits"] ==
            panels["image"]).all()  # fmt: skip
    assert instance_panels(image, truth, none, SHAPES_INSTANCES, 300)["errors"].shape == image.shape


def test_pictures_are_small_whatever_they_show():
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    for picture in (noise, np.zeros((256, 512, 3), np.uint8)):
        content = base64.b64decode(webp(picture).partition("base64,")[2])
        assert len(content) < 1.2 * PICTURE_BYTES
        assert Image.open(io.BytesIO(content)).size == picture.shape[1::-1]
