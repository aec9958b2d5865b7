"""`demo`: a page to try a network in a browser, for this machine alone."""

import functools
import itertools
import logging
import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path

from werkzeug.serving import WSGIRequestHandler, make_server

from segtrain.assembly import build_data
from segtrain.cli.explain import explain
from segtrain.cli.predict import find_network
from segtrain.configuration.schema import Demo
from segtrain.contracts import Source
from segtrain.demo.application import Application
from segtrain.errors import UserError
from segtrain.lifetime import temporary_folder
from segtrain.loading import make_predictor
from segtrain.picture import Picture
from segtrain.predictor import Settings

logger = logging.getLogger("segtrain")

PORTS = range(7860, 7960)
LOCAL = ("127.0.0.1", "localhost", "::1")
LOWEST = 0.05  # what instances score that the page can show


class Silent(WSGIRequestHandler):
    """No line for each request: names of pictures are nobody's business."""

    def log(self, type: str, message: str, *arguments: object) -> None:  # noqa: A002
        """Says nothing."""


def run(config: Demo, run_dir: Path) -> None:
    """Serves until it is interrupted.

    Raises:
        UserError: there is nothing to predict with, or the port or address cannot be had.
    """
    host = config["host"]
    listening = listen(host, config["port"])
    trained = find_network(config)
    settings = Settings(config["device"], config["precision"], min(config["min_score"], LOWEST),
                        config["max_pixels"], config["short_side"])  # fmt: skip
    predictor = make_predictor(trained, config.get("inference"), settings)
    about = {"name": trained.config.get("experiment") or Path(trained.origin).name,
             "device": str(predictor.device), "min_score": config["min_score"]}  # fmt: skip
    hosts = [*LOCAL, "[::1]"] if host in LOCAL else None
    example = examples(trained.config) if "dataset" in trained.config else None
    with temporary_folder() as folder:
        application = Application(predictor, about, folder, hosts, example, message)
        port = listening.getsockname()[1]
        server = make_server(host, port, application, threaded=True, request_handler=Silent,
                             fd=listening.fileno())  # fmt: skip
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        logger.info("demo        %s shows %s on %s (Ctrl-C ends it)", url, trained.origin,
                    predictor.device)  # fmt: skip
        if config["browser"]:
            webbrowser.open(url)
        server.serve_forever()


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that is bound to the port, or to the first of PORTS that is free.

    Raises:
        UserError: there is none, or the address is not this machine's.
    """
    if host not in LOCAL:
        logger.warning("host=%s: whoever reaches this machine there can use the page; there is "
                       "no password", host)  # fmt: skip
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in PORTS if port is None else [port]:
        try:
            return socket.create_server((host, candidate), family=family)
        except OSError as error:
            failed = error
            if port is not None or isinstance(error, socket.gaierror):
                break
    reason = failed.strerror or failed
    raise UserError(f"host={host} port={candidate}: no server can be started there ({reason}); "
                    "leave out port for the next that is free")  # fmt: skip


def examples(config: Demo) -> Callable[[], Picture]:
    """Gives one picture after the other of those by which the checkpoint was chosen.

    The data set, which may be gone by now, is looked for when the first is asked for.
    """
    numbers = itertools.count()

    @functools.cache
    def source() -> Source:
        if "dataset" not in config:
            raise UserError("nothing says which data set this network is for; give a picture")
        data = build_data(config)
        return data.source(data.splits["val"])

    def example() -> Picture:
        image, _ = source().read(next(numbers) % len(source()))
        return Picture(image, 1)

    return example


def message(error: Exception) -> str:
    """What the page says of an error; of one that nobody thought of, the terminal says more."""
    explained = explain(error)
    if explained is not None:
        return explained[0]
    logger.error("demo        a prediction failed", exc_info=error)
    return f"the prediction failed ({type(error).__name__}: {error}); the terminal says more"
