"""What the page's server answers: predictions, layers of what is chosen, files, and errors."""

import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import street
from PIL import Image
from predicting import picture, write_run, write_video
from werkzeug.test import Client

from segtrain import load, masks
from segtrain.demo import application
from segtrain.demo.application import Application
from segtrain.errors import UserError
from segtrain.picture import read_picture
from segtrain.prediction import InstancePrediction, MultilabelPrediction, PanopticPrediction


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return load(write_run(tmp_path_factory.mktemp("runs") / "run"), device="cpu")


class Boxes:
    """A detector that finds two overlapping circles (class 1) and a square (class 2) anywhere."""

    task = "instance"
    white = None

    def __init__(self, label_set):
        self.label_set = label_set

    def __call__(self, image):
        seen = read_picture(image)
        found = np.zeros((3, *seen.pixels.shape[:2]), bool)
        found[0, 4:24, 4:24] = found[1, 12:20, 12:40] = found[2, 30:40, 30:50] = True
        boxes = np.array([[4, 4, 24, 24], [12, 12, 40, 20], [30, 30, 50, 40]], np.float32)
        return InstancePrediction(
            seen, boxes, np.array([0.9, 0.6, 0.3], np.float32), np.array([1, 1, 2]),
            masks.encode(found), self.label_set, self.task, {},
        )  # fmt: skip


def client(predictor, folder=Path("videos"), example=None) -> Client:
    folder.mkdir(exist_ok=True)

    def explain(error: Exception) -> str:
        return str(error) if isinstance(error, UserError) else "a defect"

    about = {"name": "test", "device": "cpu", "min_score": 0.5}
    return Client(Application(predictor, about, folder, ["localhost"], example, explain))


def give(page: Client, path: Path) -> dict:
    """The last line of the answer to a file."""
    answer = page.post(f"/predict?name={path.name}", data=path.read_bytes())
    assert answer.status_code == 200
    return json.loads(answer.text.splitlines()[-1])


def fetch(page: Client, address: str) -> np.ndarray:
    answer = page.get(address)
    assert answer.status_code == 200, address
    return np.asarray(Image.open(io.BytesIO(answer.data)))


def hard_pictures() -> list[Path]:
    """One that lies on its side, one with transparency, one of 16 bits, and a plain one."""
    plain = picture("plain.png")
    image, exif = Image.open(plain), Image.Exif()
    exif[0x0112] = 6
    image.save("turned.jpg", exif=exif)
    image.putalpha(100)
    image.save("clear.png")
    deep = np.asarray(image.convert("L")).astype(np.uint16) * 200
    Image.fromarray(deep).save("deep.tif")
    return [plain, *map(Path, ("turned.jpg", "clear.png", "deep.tif"))]


def test_pictures_are_read_as_everywhere(predictor):
    page = client(predictor)
    for path in hard_pictures():
        said, expected = give(page, path), predictor(path)
        assert np.array_equal(fetch(page, f"/{said['key']}/labels"), expected.labels), path
        shares = {entry["name"]: entry["share"] for entry in said["classes"]}
        assert shares == pytest.approx(expected.shares, abs=1e-5)
        assert (said["height"], said["width"]) == expected.labels.shape
        assert said["seconds"] > 0
        shown = fetch(page, f"/{said['key']}/picture").astype(int)
        assert np.abs(shown - expected.image).mean() < 6  # a JPEG
    assert not list(Path("videos").iterdir())


def test_layers_have_the_chosen_classes_alone(predictor, monkeypatch):
    page, path = client(predictor), picture("a.png")
    said, expected = give(page, path), predictor(path)
    monkeypatch.setattr(Application, "_predict", None)  # nothing is predicted from here on
    monkeypatch.setattr(type(predictor), "__call__", None)
    first, second = [entry["id"] for entry in said["classes"]][:2]
    for classes in ([first], [second], [first, second], []):
        chosen = np.isin(expected.labels, classes)
        listed = ",".join(map(str, classes))
        layer = fetch(page, f"/{said['key']}/layer?classes={listed}")
        edge = np.isin(layer[..., :3], (0, 255)).all(axis=2) & (layer[..., 3] == 255)
        assert (layer[chosen][:, 3] == 255).all()
        colours = {tuple(colour) for colour in layer[chosen & ~edge][:, :3].tolist()}
        assert colours <= {predictor.labels.palette[index] for index in classes}
        assert (layer[~chosen & ~edge][:, 3] == 0).all()
        cut = fetch(page, f"/{said['key']}/cutout?classes={listed}")
        assert np.array_equal(cut[..., 3] == 255, chosen)
        assert np.array_equal(cut[chosen][:, :3], expected.image[chosen])


def test_opacity_of_an_overlay(predictor):
    page = client(predictor)
    said = give(page, picture("a.png"))
    every = ",".join(str(entry["id"]) for entry in said["classes"])
    address = f"/{said['key']}/overlay?classes={every}&opacity="
    plain = read_picture("a.png").pixels
    layer = fetch(page, f"/{said['key']}/layer?classes={every}")[..., :3]
    assert np.array_equal(fetch(page, f"{address}0"), plain)
    assert np.array_equal(fetch(page, f"{address}1"), layer)
    half = (layer.astype(int) + plain) / 2
    assert np.abs(fetch(page, f"{address}0.5") - half).max() <= 1


def test_instances_by_class_and_score(predictor):
    page, detector = client(Boxes(predictor.labels)), Boxes(predictor.labels)
    said, expected = give(page, picture("a.png")), detector(Path("a.png")).masks
    assert [(one["name"], one["area"]) for one in said["instances"]] == [
        ("circle", 400), ("circle", 224), ("square", 200)
    ]  # fmt: skip
    assert [one["score"] for one in said["instances"]] == pytest.approx([0.9, 0.6, 0.3])
    assert {entry["name"] for entry in said["classes"]} == {"circle", "square"}
    cases = {"1,2": {0: [0, 1, 2], 0.5: [0, 1], 0.95: []}, "2": {0: [2], 0.5: []}}
    for classes, limits in cases.items():
        for limit, numbers in limits.items():
            cut = fetch(page, f"/{said['key']}/cutout?classes={classes}&min_score={limit}")
            union = np.logical_or.reduce([np.zeros((48, 64), bool), *expected[numbers]])
            assert np.array_equal(cut[..., 3] == 255, union), (classes, limit)
    layer = fetch(page, f"/{said['key']}/layer?classes=2&min_score=0.1")
    assert tuple(layer[36, 46]) == (*predictor.labels.palette[2], 255)
    assert not layer[:28, :28].any()
    assert page.get(f"/{said['key']}/labels").status_code == 404  # instances overlap
    stored = json.loads(page.get(f"/{said['key']}/json").text)
    assert len(stored["instances"]) == 3


class Found:
    """A network that finds the same in any picture."""

    white = None

    def __init__(self, task, label_set, find):
        self.task, self.labels, self.find = task, label_set, find

    def __call__(self, image):
        return self.find(read_picture(image))


def test_classes_that_overlap(predictor):
    labels, masks_of = predictor.labels, np.zeros((8, 48, 64), bool)
    masks_of[1, 4:24, 4:24] = masks_of[2, 12:30, 12:40] = True
    page = client(Found("multilabel", labels, lambda seen: MultilabelPrediction(
        seen, masks_of, labels, {}, lambda picture: None)))  # fmt: skip
    said = give(page, picture("a.png"))
    shares = {entry["id"]: entry["share"] for entry in said["classes"]}
    assert shares == pytest.approx({1: 400 / 3072, 2: 504 / 3072})
    assert said["instances"] == []
    for chosen in ([1], [2], [1, 2]):
        cut = fetch(page, f"/{said['key']}/cutout?classes={','.join(map(str, chosen))}")
        assert np.array_equal(cut[..., 3] == 255, masks_of[chosen].any(0))


def test_segments_by_class_and_score():
    def find(seen):
        found = street.street(seen.pixels.shape[:2])
        return PanopticPrediction(seen, found["map"].numpy(), found["labels"].numpy(),
                                  found["scores"].numpy(), street.STREET, {})  # fmt: skip

    page, expected = client(Found("panoptic", street.STREET, find)), street.street((48, 64))["map"]
    said = give(page, picture("a.png"))
    assert [one["name"] for one in said["instances"]] == ["sky", "road", "car", "car"]
    assert [one["area"] for one in said["instances"]] == [
        int((expected == n).sum()) for n in (1, 2, 3, 4)
    ]
    assert {entry["name"] for entry in said["classes"]} == {"sky", "road", "car"}
    cases = {("2", 0): [3, 4], ("2", 0.7): [3], ("0,2", 0.7): [1, 3], ("", 0): []}
    for (classes, limit), numbers in cases.items():
        asked = f"?classes={classes}&min_score={limit}"
        cut = fetch(page, f"/{said['key']}/cutout{asked}")
        inside = np.isin(expected, numbers)
        assert np.array_equal(cut[..., 3] == 255, inside), asked
        layer = fetch(page, f"/{said['key']}/layer{asked}")
        assert (layer[inside][:, 3] == 255).all()
        cars = (layer[..., :3] == street.STREET.palette[2]).all(axis=2)
        assert cars.any() == (3 in numbers)
    ids = fetch(page, f"/{said['key']}/labels").astype(int)
    assert np.array_equal(ids @ (1, 256, 65536), expected)


@pytest.mark.parametrize("kind", ["text.jpg", "cut.jpg", "empty.png", "text.mp4", "empty.mp4"])
def test_what_cannot_be_read_is_said_and_the_next_is_looked_at(predictor, kind):
    page, path = client(predictor), Path(kind)
    whole = picture("whole.jpg").read_bytes()
    path.write_bytes({"text": b"a poem", "cut": whole[:500], "empty": b""}[path.stem])
    said = give(page, path)
    assert said.keys() == {"error"}
    assert kind in said["error"]
    assert "videos" not in said["error"]
    assert "classes" in give(page, Path("whole.jpg"))
    assert not list(Path("videos").iterdir())


def test_a_defect_does_not_end_the_server(predictor, monkeypatch):
    page, path = client(predictor), picture("a.png")
    with monkeypatch.context() as patch:
        patch.setattr(type(predictor), "__call__", lambda self, image: 1 / 0)
        assert give(page, path) == {"error": "a defect"}
    assert "classes" in give(page, path)


def test_files_that_are_too_large(predictor, monkeypatch):
    monkeypatch.setattr(application, "LARGEST", 1000)
    page = client(predictor)
    assert page.post("/predict?name=a.png", data=bytes(1001)).status_code == 413
    assert json.loads(page.get("/about").text)["largest"] == 1000


def test_one_prediction_at_a_time(predictor, monkeypatch):
    running, most, look = [], [], Boxes.__call__

    def slow(self, image):
        running.append(image)
        most.append(len(running))
        time.sleep(0.05)
        running.pop()
        return look(self, image)

    monkeypatch.setattr(Boxes, "__call__", slow)
    page, path = client(Boxes(predictor.labels)), picture("a.png")
    with ThreadPoolExecutor(4) as tabs:
        said = list(tabs.map(lambda _: give(page, path), range(4)))
    assert len({one["key"] for one in said}) == 4
    assert most == [1, 1, 1, 1]


def test_a_video_is_shown_frame_by_frame(predictor):
    write_video("drive.mp4", count=3)
    page = client(predictor)
    answer = page.post("/predict?name=drive.mp4", data=Path("drive.mp4").read_bytes())
    *frames, said = map(json.loads, answer.text.splitlines())
    assert [line["frame"] for line in frames] == [1, 2, 3]
    assert said["frames"] == 3
    assert (said["width"], said["height"]) == (64, 48)
    (kept,) = Path("videos").iterdir()  # what was given is gone
    video = cv2.VideoCapture(str(kept))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    served = page.get(f"/{said['key']}/video", headers={"Range": "bytes=0-9"})
    assert (served.status_code, len(served.data)) == (206, 10)
    assert served.mimetype == "video/webm"


def test_instances_of_a_video_score_enough(predictor, monkeypatch):
    shown = []
    frame = InstancePrediction.frame
    monkeypatch.setattr(InstancePrediction, "frame",
                        lambda self: (shown.append(len(self.codes)), frame(self))[1])  # fmt: skip
    write_video("drive.mp4", count=1)
    give(client(Boxes(predictor.labels)), Path("drive.mp4"))
    assert shown == [2]


def test_long_videos_are_refused(predictor, monkeypatch):
    monkeypatch.setattr(application, "LONGEST", 2)
    write_video("drive.mp4", count=3)
    said = give(client(predictor), Path("drive.mp4"))
    assert "drive.mp4: more than 2 frames" in said["error"]
    assert not list(Path("videos").iterdir())


def test_the_last_predictions_are_kept(predictor):
    page, path = client(predictor), picture("a.png")
    write_video("drive.mp4", count=1)
    keys = [give(page, Path("drive.mp4"))["key"]]
    keys += [give(page, path)["key"] for _ in range(application.KEPT)]
    answers = [page.get(f"/{key}/picture").status_code for key in keys]
    assert answers == [404] + [200] * application.KEPT
    assert not list(Path("videos").iterdir())


def test_examples_come_one_after_the_other(predictor):
    pictures = iter([read_picture(picture(f"{n}.png", seed=n)) for n in range(2)])
    page = client(predictor, example=lambda: next(pictures))
    assert json.loads(page.get("/about").text)["has_examples"]
    for number in range(2):
        said = json.loads(page.post("/example").text)
        expected = predictor(Path(f"{number}.png")).labels
        assert np.array_equal(fetch(page, f"/{said['key']}/labels"), expected)
    assert client(predictor).post("/example").status_code == 404


def test_other_sites_are_refused(predictor):
    page = client(predictor)
    for headers in ({"Host": "elsewhere.example"}, {"Origin": "http://elsewhere.example"}):
        assert page.get("/about", headers=headers).status_code in (400, 403)
        answer = page.post("/predict?name=a.png", data=b"", headers=headers)
        assert answer.status_code in (400, 403)
    assert page.get("/about", headers={"Origin": "http://localhost"}).status_code == 200


@pytest.mark.parametrize("address", ["/", "/page.js", "/page.css", "/report.css"])
def test_nothing_of_the_page_comes_from_elsewhere(predictor, address):
    answer = client(predictor).get(address)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "//" not in answer.text.replace("  //", "")
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("address", ["/x", "/x/picture", "/page.html", "/../demo/page.js"])
def test_what_is_not_there(predictor, address):
    assert client(predictor).get(address).status_code == 404


def test_values_that_cannot_be(predictor):
    page = client(predictor)
    key = give(page, picture("a.png"))["key"]
    for query in ("classes=x", "min_score=x", "opacity=x", "opacity=nan", "opacity=2"):
        assert page.get(f"/{key}/layer?{query}").status_code == 400
    assert page.get(f"/{key}/else").status_code == 404
