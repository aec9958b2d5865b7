import numpy as np
import pytest
from PIL import Image

from segtrain.dataset.cityscapes import CityscapesInstances, cityscapes, cityscapes_panoptic
from segtrain.dataset.labels import CITYSCAPES, CITYSCAPES_INSTANCES
from segtrain.dataset.panoptic_labels import CITYSCAPES_PANOPTIC
from segtrain.errors import UserError
from segtrain.segments import CROWD


def write(root, annotation, folder, city, stem, label_ids, instance_ids=None):
    images = root / "leftImg8bit" / folder / city
    images.mkdir(parents=True, exist_ok=True)
    image = np.zeros((*label_ids.shape, 3), np.uint8)
    Image.fromarray(image).save(images / f"{stem}_leftImg8bit.png")
    if annotation:
        masks = root / annotation / folder / city
        masks.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label_ids).save(masks / f"{stem}_{annotation}_labelIds.png")
        if instance_ids is not None:
            Image.fromarray(instance_ids).save(masks / f"{stem}_{annotation}_instanceIds.png")


@pytest.fixture
def tree(tmp_path):
    labels = np.repeat(np.arange(34, dtype=np.uint8), 2).reshape(4, 17)
    instances = labels.astype(np.uint16)
    instances[3, 10:] = [26000, 26000, 26001, 24, 24, 33007, 33007]
    write(tmp_path, "gtFine", "train", "aachen", "aachen_000000_000019", labels, instances)
    write(tmp_path, "gtCoarse", "train_extra", "erlangen", "erlangen_000000_000019", labels)
    write(tmp_path, None, "test", "berlin", "berlin_000000_000019", labels)
    return tmp_path


@pytest.mark.parametrize("split", ["train", "train_extra"])
def test_label_ids_become_train_ids(tree, split):
    _, mask = cityscapes(str(tree), split, CITYSCAPES).read(0)
    table = pytest.importorskip("cityscapesscripts.helpers.labels").id2label
    raw = np.repeat(np.arange(34), 2).reshape(4, 17)
    expected = [255 if table[i].ignoreInEval else table[i].trainId for i in raw.ravel()]
    assert mask.ravel().tolist() == expected


def test_test_split_has_no_labels(tree):
    source = cityscapes(str(tree), "test", CITYSCAPES)
    assert not source.labelled
    assert (source.read(0)[1] == 255).all()
    assert source.name(0) == "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"


def test_instances_and_groups(tree):
    _, target = CityscapesInstances(str(tree), "train", CITYSCAPES_INSTANCES).read(0)
    found = sorted(
        zip(target["labels"].tolist(), target["crowd"].tolist(), target["area"], strict=True)
    )
    # Label ids 24 to 33 stand in the map as groups, in part replaced by single objects.
    assert (2, False, 2.0) in found  # car 26000
    assert (2, False, 1.0) in found  # car 26001
    assert (7, False, 2.0) in found  # bicycle 33007
    assert (0, True, 4.0) in found  # persons that were not told apart
    assert not {(3, False)} & {entry[:2] for entry in found}
    car = target["boxes"][target["area"].tolist().index(1.0)]
    assert car.tolist() == [12.0, 3.0, 13.0, 4.0]


def test_errors(tree):
    with pytest.raises(UserError, match="no split 'holdout'; expected one of train"):
        cityscapes(str(tree), "holdout", CITYSCAPES)
    with pytest.raises(UserError, match="segtrain prepare dataset=cityscapes"):
        cityscapes(str(tree), "val", CITYSCAPES)


def test_real_train_ids(real_data):
    source = cityscapes(str(real_data / "cityscapes"), "train", CITYSCAPES)
    table = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    lookup = np.full(256, 255)
    for label in table:
        if label.id >= 0 and not label.ignoreInEval:
            lookup[label.id] = label.trainId
    assert len(source) == 8
    for index in (0, 7):
        image, mask = source.read(index)
        assert image.shape == (1024, 2048, 3)
        assert (mask == lookup[np.asarray(Image.open(source.pairs[index].mask))]).all()


def test_real_instances_cover_their_classes(real_data):
    root = str(real_data / "cityscapes")
    source = CityscapesInstances(root, "val", CITYSCAPES_INSTANCES)
    image, target = source.read(0)
    raw = np.asarray(Image.open(source.pairs.pairs[0].mask))
    expected = {int(value) for value in np.unique(raw) if (value // 1000 or value) in
                CITYSCAPES_INSTANCES.raw_to_train}  # fmt: skip
    assert len(target["labels"]) == len(expected) > 3
    for mask, label, box in zip(target["masks"], target["labels"], target["boxes"], strict=True):
        values = np.unique(raw[mask > 0])
        assert len(values) == 1
        value = int(values[0])
        assert (raw == value).sum() == mask.sum()
        assert CITYSCAPES_INSTANCES.raw_to_train[value // 1000 or value] == label
        assert mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])].sum() == mask.sum()
    assert image.shape[:2] == target["masks"].shape[1:]


def panoptic_slowly(path):
    """Classes and numbers (H, W) as cityscapesScripts' table of labels defines them."""
    table = pytest.importorskip("cityscapesscripts.helpers.labels").id2label
    ids = np.asarray(Image.open(path))
    classes, numbers = np.full(ids.shape, 255), np.zeros(ids.shape, int)
    for value in sorted(set(ids.ravel().tolist())):
        label = table[value if value < 1000 else value // 1000]
        if label.ignoreInEval:
            continue
        classes[ids == value] = label.trainId
        if label.hasInstances:
            numbers[ids == value] = CROWD if value < 1000 else value % 1000 + 1
    return classes, numbers


@pytest.mark.parametrize(("split", "count"), [("train", 8), ("val", 1)])
def test_panoptic_labels_of_every_real_file(real_data, split, count):
    source = cityscapes_panoptic(str(real_data / "cityscapes"), split, CITYSCAPES_PANOPTIC)
    assert len(source) == count
    for index in range(count):
        mask = source.read(index)[1] if split == "val" else source.decode(
            source.pairs[index].mask, CITYSCAPES_PANOPTIC)  # fmt: skip
        classes, numbers = panoptic_slowly(source.pairs[index].mask)
        assert np.array_equal(mask[..., 0], classes)
        assert np.array_equal(mask[..., 1] + 256 * mask[..., 2].astype(int), numbers)


def test_panoptic_groups_void_and_what_is_unknown(tree):
    source = cityscapes_panoptic(str(tree), "train", CITYSCAPES_PANOPTIC)
    _, mask = source.read(0)
    classes, numbers = panoptic_slowly(source.pairs[0].mask)
    assert np.array_equal(mask[..., 0], classes)
    assert np.array_equal(mask[..., 1] + 256 * mask[..., 2].astype(int), numbers)
    assert source.class_counts(0)[-1] == np.count_nonzero(classes == 255)
    assert CITYSCAPES_PANOPTIC.things == set(range(11, 19))
    unlabelled = cityscapes_panoptic(str(tree), "test", CITYSCAPES_PANOPTIC).read(0)[1]
    assert unlabelled.shape == (4, 17, 3)
    assert (unlabelled == 255).all()
    Image.fromarray(np.full((4, 17), 65001, np.uint16)).save(source.pairs[0].mask)
    with pytest.raises(UserError, match=r"aachen.*instanceIds\.png: mask value 65 is not in"):
        source.read(0)
