"""The page's server: takes pictures and videos, keeps what the network said of the last ones.

One prediction runs at a time; the others wait. Pictures stay in memory; videos, which have to be
files, lie in a folder that goes when the command ends.
"""

import io
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, NotFound
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from segtrain.demo import layers
from segtrain.errors import UserError
from segtrain.picture import Picture, decode_picture
from segtrain.prediction import PanopticPrediction, Prediction, SemanticPrediction
from segtrain.prediction.files import cut_out
from segtrain.predictor import Predictor
from segtrain.report.video import VIDEOS, VideoFile, VideoWriter

KEPT = 4  # predictions, for the tabs of one person
LARGEST = 200 * 2**20  # bytes of a file
LONGEST = 1000  # frames of a video
STATIC = {
    "/": "demo/static/page.html", "/page.css": "demo/static/page.css",
    "/page.js": "demo/static/page.js", "/report.css": "report/static/page.css",
}  # fmt: skip
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
HEADERS = {  # the browser itself refuses whatever would come from or go to elsewhere
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}  # fmt: skip


class Application:
    """A WSGI application.

    Args:
        predictor: finds more instances than are shown at first.
        about: what the page says of the network; has `min_score`.
        folder: for videos; whoever made it removes it.
        hosts: names under which it may be asked, so that no other site's leads here; None: any.
        example: gives one picture of the data set after the other; None: it is not known.
        explain: message of an error.
    """

    def __init__(
        self,
        predictor: Predictor,
        about: dict[str, Any],
        folder: Path,
        hosts: list[str] | None,
        example: Callable[[], Picture] | None,
        explain: Callable[[Exception], str],
    ) -> None:
        self.predictor = predictor
        self.about = about | {
            "task": predictor.task, "largest": LARGEST, "has_examples": example is not None,
        }  # fmt: skip
        self.folder = folder
        self.hosts = hosts
        self.example = example
        self.explain = explain
        self.kept: dict[str, Prediction | Path] = {}
        self.one_at_a_time = threading.Lock()

    def __call__(self, environ: dict, start_response: Callable) -> Any:
        request = Request(environ)
        request.trusted_hosts = self.hosts
        request.max_content_length = LARGEST
        try:
            response = self._answer(request)
        except HTTPException as error:
            response = error.get_response(environ)
        response.headers.update(HEADERS)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.headers.get("Origin", own := request.host_url.rstrip("/")) != own:
            raise Forbidden("another site's page asks")
        if request.path in STATIC and request.method == "GET":
            file = files("segtrain") / STATIC[request.path]
            kind = TYPES[file.name.rpartition(".")[2]]
            return Response(file.read_bytes(), content_type=f"{kind}; charset=utf-8")
        if request.path == "/about" and request.method == "GET":
            return Response(json.dumps(self.about), mimetype="application/json")
        if request.path == "/predict" and request.method == "POST":
            name = request.args.get("name") or "picture"
            return _lines(self._predict(name, request.get_data(cache=False)))
        if request.path == "/example" and request.method == "POST" and self.example is not None:
            return _lines(self._predict_picture(self.example))
        _, key, what = (*request.path.split("/"), "", "")[:3]
        if request.method == "GET" and key in self.kept:
            return self._shown(self.kept[key], what, request)
        raise NotFound("no such page, or the prediction is no longer kept: give the picture again")

    def _predict(self, name: str, data: bytes) -> Iterator[dict]:
        """How far it has come, then what was found, or an error."""
        if Path(name).suffix.lower() in VIDEOS:
            return self._predict_video(name, data)
        return self._predict_picture(lambda: decode_picture(data, name, self.predictor.white))

    def _predict_picture(self, read: Callable[[], Picture]) -> Iterator[dict]:
        try:
            with self.one_at_a_time:
                picture = read()
                started = time.perf_counter()
                prediction = self.predictor(picture)
                seconds = time.perf_counter() - started
            found = layers.described(prediction)
            yield {"key": self._keep(prediction), "seconds": seconds, **found}
        except Exception as error:  # the page says so, and the server lives on
            yield {"error": self.explain(error)}

    def _predict_video(self, name: str, data: bytes) -> Iterator[dict]:
        """Frame by frame, so that a picture may come between; ends when nobody listens."""
        file = self.folder / f"{secrets.token_hex(8)}{Path(name).suffix.lower()}"
        shown = file.with_name(f"{file.stem}_shown.webm")
        try:
            file.write_bytes(data)
            video, count, started = VideoFile(file), 0, time.perf_counter()
            with VideoWriter(shown, video.rate) as writer:
                for count, frame in enumerate(video, 1):
                    if count > LONGEST:
                        raise UserError(f"{name}: more than {LONGEST} frames; segtrain predict "
                                        "input=<video> takes any")  # fmt: skip
                    with self.one_at_a_time:
                        prediction = self.predictor(frame)
                    writer.write(layers.confident(prediction, self.about["min_score"]).frame())
                    yield {"frame": count, "frames": video.count}
            if not count:
                raise UserError(f"{name}: no frame of it can be decoded")
            size = {"width": frame.shape[1], "height": frame.shape[0]}
            seconds = time.perf_counter() - started
            yield {"key": self._keep(shown), "seconds": seconds, "frames": count, **size}
        except Exception as error:
            yield {"error": self.explain(error).replace(str(file), name)}
        finally:
            file.unlink(missing_ok=True)
            if shown not in self.kept.values():
                shown.unlink(missing_ok=True)

    def _keep(self, result: Prediction | Path) -> str:
        """The name under which the page asks for it."""
        key = secrets.token_urlsafe(12)
        self.kept[key] = result
        for old in list(self.kept)[:-KEPT]:
            if isinstance(forgotten := self.kept.pop(old), Path):
                forgotten.unlink(missing_ok=True)
        return key

    def _shown(self, kept: Prediction | Path, what: str, request: Request) -> Response:
        if isinstance(kept, Path):
            return send_file(kept, request.environ, mimetype="video/webm", conditional=True)
        try:
            numbers = request.args.get("classes", "").split(",")
            classes = {int(number) for number in numbers if number}
            min_score = float(request.args.get("min_score", 0))
            opacity = float(request.args.get("opacity", 1))
            if not 0 <= opacity <= 1:
                raise ValueError
        except ValueError:
            raise BadRequest("expected whole numbers, a number, and one in 0..1") from None
        if what == "picture":
            return _picture(layers.shown_picture(kept), "JPEG", quality=92)
        if what == "layer":
            return _picture(layers.layer(kept, classes, min_score))
        if what == "overlay":
            cover = layers.layer(kept, classes, min_score)
            return _picture(layers.overlay(kept, cover, opacity))
        if what == "cutout":
            return _picture(cut_out(kept.image, layers.chosen_mask(kept, classes, min_score)))
        if what == "labels" and isinstance(kept, SemanticPrediction):
            return _picture(kept.palette_image())
        if what == "labels" and isinstance(kept, PanopticPrediction):
            return _picture(kept.id_image())
        if what == "json":
            return Response(json.dumps(kept.summary(), indent=2), mimetype="application/json")
        raise NotFound


def _lines(told: Iterator[dict]) -> Response:
    return Response((json.dumps(one) + "\n" for one in told), mimetype="text/plain")


def _picture(picture: Image.Image, kind: str = "PNG", **settings: int) -> Response:
    encoded = io.BytesIO()
    settings = settings or {"compress_level": 1}  # it goes no further than this machine
    picture.save(encoded, kind, **settings)
    return Response(encoded.getvalue(), mimetype=f"image/{kind.lower()}")
