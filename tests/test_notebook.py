"""Predictions and predictors as cells of a notebook show them."""

import numpy as np
import pytest
from fragments import Fragment, require_still
from predicting import DETECTOR, PROPOSALS, SEMANTIC, write_run

from segtrain import InstancePrediction, SemanticPrediction, load
from segtrain.label_set import LabelSet
from segtrain.masks import encode
from segtrain.notebook import PICTURE_SIDES, Table
from segtrain.picture import Picture

NAMES = ("background", "sky", "<script>alert(1)</script>", 'a" onload="x\nb', "x" * 300)
LABELS = LabelSet(NAMES, ((0, 0, 0), (70, 130, 180), (250, 20, 30), (1, 200, 3), (9, 9, 90)),
                  {n: n for n in range(5)})  # fmt: skip


def semantic(labels: np.ndarray) -> SemanticPrediction:
    picture = Picture(np.full((*labels.shape, 3), 120, np.uint8), 1)
    return SemanticPrediction(picture, labels, LABELS, {}, lambda picture: None)


def instances(task="instance", labels=(1, 1, 2), size=(40, 60)) -> InstancePrediction:
    masks = np.zeros((len(labels), *size), bool)
    for number, mask in enumerate(masks):
        mask[4:14, 2 + 12 * number : 12 + 12 * number] = True
    boxes = np.array([[2 + 12 * n, 4, 12 + 12 * n, 14] for n in range(len(labels))], np.float32)
    return InstancePrediction(
        Picture(np.full((*size, 3), 120, np.uint8), 1), boxes.reshape(-1, 4),
        np.linspace(0.9, 0.6, len(labels), dtype=np.float32), np.array(labels, np.int64),
        encode(masks), LABELS, task, {},
    )  # fmt: skip


def halves() -> SemanticPrediction:
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 15:] = 1
    labels[30:, 30:] = 2
    return semantic(labels)


@pytest.mark.parametrize(
    "shown",
    [halves(), semantic(np.full((9, 7), 3, np.uint8)), semantic(np.full((9, 7), 4, np.uint8)),
     instances(), instances("proposal"), instances(labels=()), instances(labels=(1, 4) * 2)],
)  # fmt: skip
def test_whatever_is_shown_is_still_and_its_representation_one_line(shown):
    require_still(Fragment(shown._repr_html_()))
    assert len(repr(shown)) < 120
    assert repr(shown).isprintable()
    assert type(shown).__name__ in repr(shown)


def test_the_overlay_has_the_colours_of_the_palette():
    (picture,) = Fragment(halves()._repr_html_()).pictures
    scale = picture.shape[1] / 60
    for column, row, label in ((40, 10, 1), (50, 36, 2)):
        pixel = picture[int(row * scale), int(column * scale)].astype(int)
        expected = 0.55 * np.array(LABELS.palette[label]) + 0.45 * 120
        assert np.abs(pixel - expected).max() <= 1
    assert (picture[int(5 * scale), int(5 * scale)] == 120).all()  # the background is not painted


def test_the_legend_lists_the_classes_that_are_there():
    fragment = Fragment(halves()._repr_html_())
    _, *rows = fragment.rows
    assert [name for name, _ in rows] == ["sky", "background", NAMES[2]]
    assert [share for _, share in rows] == ["62.5 %", "25.0 %", "12.5 %"]
    assert fragment.swatches == ["rgb(70,130,180)", "transparent", "rgb(250,20,30)"]
    assert "3 of 5 classes" in fragment.text


def test_instances_are_listed_with_their_scores():
    fragment = Fragment(instances()._repr_html_())
    _, *rows = fragment.rows
    assert rows == [["sky", "90.0 %"], ["sky", "75.0 %"], [NAMES[2], "60.0 %"]]
    (picture,) = fragment.pictures
    scale = picture.shape[1] / 60
    for number, colour in enumerate(fragment.swatches):  # each is that of its mask
        pixel = picture[int(12 * scale), int((7 + 12 * number) * scale)].astype(float)
        shade = np.array([int(value) for value in colour[4:-1].split(",")])
        assert np.abs(pixel - (0.55 * shade + 0.45 * 120)).max() <= 1
    assert len(set(fragment.swatches)) == 3


def test_many_instances_are_counted():
    fragment = Fragment(instances(labels=(1,) * 45, size=(40, 600))._repr_html_())
    assert len(fragment.rows) == 1 + 20
    assert "45 sky; the best 20 are listed" in fragment.text
    assert "nothing was found" in Fragment(instances(labels=())._repr_html_()).text


@pytest.mark.parametrize("size", [(8, 6), (3000, 200), (500, 500)])
def test_pictures_have_a_sensible_size(size):
    (picture,) = Fragment(semantic(np.zeros(size, np.uint8))._repr_html_()).pictures
    assert max(picture.shape) == np.clip(max(size), *PICTURE_SIDES)


@pytest.mark.parametrize("kind", [SEMANTIC, DETECTOR, PROPOSALS], ids=lambda kind: kind[0])
def test_predictors_show_their_classes(tmp_path, kind):
    predictor = load(write_run(tmp_path / "run", *kind), device="cpu")
    fragment = Fragment(predictor._repr_html_())
    require_still(fragment)
    assert all(name in fragment.text for name in predictor.labels.names)
    assert len(fragment.swatches) == predictor.labels.num_classes
    assert type(predictor.model).__name__ in repr(predictor)
    assert len(repr(predictor)) < 120
    require_still(Fragment(predictor(np.zeros((40, 40, 3), np.uint8))._repr_html_()))


def test_tables_are_rows():
    table = Table(("class", "IoU"), (("<b>", 0.5), ("cat", None)))
    assert list(table) == [{"class": "<b>", "IoU": 0.5}, {"class": "cat", "IoU": None}]
    fragment = Fragment(table._repr_html_())
    require_still(fragment)
    assert fragment.rows == [["class", "IoU"], ["<b>", "50.0 %"], ["cat", "-"]]
    assert len(repr(table)) < 120
