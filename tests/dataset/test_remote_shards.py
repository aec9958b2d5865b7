"""Shards read from an S3-compatible store and over HTTP, on this machine."""

import logging
import os
import shutil
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context

import pytest
from test_shards import SMALL, epoch, module, written

from segtrain.dataset import remote
from segtrain.dataset.shard_index import ShardReading
from segtrain.dataset.shard_store import RemoteStore
from segtrain.errors import UserError

server = pytest.importorskip("moto.server", reason="pip install moto[s3] flask flask-cors")
boto3 = pytest.importorskip("boto3", reason="pip install segtrain[shards]")


@pytest.fixture(scope="module")
def endpoint():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    host, port = store.get_host_and_port()
    yield f"http://{host}:{port}"
    store.stop()


@pytest.fixture
def bucket(endpoint, tmp_path, monkeypatch):
    """Shards of 12 images in 4 files in an object store; the store's client and the bucket."""
    for key, value in {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1", "SEGTRAIN_CACHE": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(remote, "WAITS", (0.01,))
    remote._s3_client.cache_clear()
    client = boto3.client("s3")
    name = f"bucket-{os.getpid()}-{time.monotonic_ns()}"
    client.create_bucket(Bucket=name)
    folder = tmp_path / "shards"
    written(folder, *SMALL)
    for path in folder.rglob("*.*"):
        client.upload_file(str(path), name, f"some/place/{path.relative_to(folder)}")
    return client, name


def shards_of(bucket, *more):
    reading = f"dataset.shards=s3://{bucket[1]}/some/place"
    return module(*SMALL, "dataset.transform.crop_size=[32, 32]", reading, *more)


def cached(tmp_path):
    return sorted((tmp_path / "cache/shards").glob("*.tar"))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_from_a_store_is_that_of_the_files(bucket, world, tmp_path):
    data = shards_of(bucket, "dataset.shard_window=2")
    source = data.source("train")
    assert source.window == 2
    seen = [sample for r in range(world) for sample in epoch(source, data.transform, r, world)]
    folder = module(*SMALL, "dataset.transform.crop_size=[32, 32]", "dataset.shard_window=2",
                    f"dataset.shards={tmp_path / 'shards'}")  # fmt: skip
    local = epoch(folder.source("train"), folder.transform, 0, 1)
    assert sorted(seen) == sorted(local)
    assert len(cached(tmp_path)) == 4
    assert not list((tmp_path / "cache/shards").glob("*.part"))
    last = epoch(source, data.transform, 0, world, first_batch=1)
    assert last == epoch(source, data.transform, 0, world)[len(last) :]


def test_the_cache_keeps_to_its_limit(bucket, tmp_path):
    sizes = [path.stat().st_size for path in (tmp_path / "shards/train").glob("*.tar")]
    limit = 2 * max(sizes) + 1000
    options = [f"dataset.shard_cache={tmp_path / 'small'}", "dataset.shard_window=1"]
    data = shards_of(bucket, *options, f"dataset.shard_cache_gb={limit / 1e9}")
    source = data.source("train")
    largest, done = [0], threading.Event()

    def watch():
        while not done.is_set():
            found = [path for ending in ("tar", "part")
                     for path in (tmp_path / "small").glob(f"*.{ending}")]  # fmt: skip
            try:
                largest.append(sum(path.stat().st_size for path in found))
            except FileNotFoundError:  # between the list and the look
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    names = [sample[0] for sample in epoch(source, data.transform, 0, 1, epochs=3)]
    done.set()
    watcher.join()
    assert len(names) == 36
    assert len(set(names)) == 12
    assert max(largest) <= limit
    with pytest.raises(UserError, match="shard_cache_gb=1e-06 is too little"):
        shards_of(bucket, "dataset.shard_cache_gb=0.000001").source("train")
    fitting = ShardReading("s3://any", cache_gigabytes=7 * max(sizes) / 1e9)
    assert fitting.resolve_window(source.shards, remote=True) == 3


def test_what_a_killed_download_left_makes_room(bucket, tmp_path):
    data = shards_of(bucket)
    source = data.source("train")
    cache = tmp_path / "cache/shards"
    (cache / "left.part").write_bytes(bytes(10**6))
    limited = RemoteStore(source.store.location, cache, max_bytes=10**6)
    assert limited.read(source.shards[0], 0, 10)
    assert not (cache / "left.part").exists()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_lost_or_corrupt_shard_is_named(bucket, workers):
    client, name = bucket
    data = shards_of(bucket)
    key = "some/place/train/00001.tar"
    content = client.get_object(Bucket=name, Key=key)["Body"].read()
    client.put_object(Bucket=name, Key=key, Body=content[:-1] + b"x")
    place = f"s3://{name}/{key}"
    with pytest.raises(UserError, match=f"{place}: cannot be read, or is corrupt: its sha256 is"):
        epoch(data.source("train"), data.transform, 0, 1, workers=workers)
    client.put_object(Bucket=name, Key=key, Body=content[:-512])
    with pytest.raises(UserError, match=f"{place}: .* bytes came, {len(content)} are expected"):
        epoch(data.source("train"), data.transform, 0, 1, workers=workers)
    client.delete_object(Bucket=name, Key=key)
    with pytest.raises(UserError, match=f"{place}: there is no such file in the store"):
        epoch(data.source("train"), data.transform, 0, 1, workers=workers)
    with pytest.raises(UserError, match="no shards there"):
        module(*SMALL, "dataset.shards=s3://no-such-bucket/x").source("train")


class Faulty(SimpleHTTPRequestHandler):
    """A folder over HTTP; every file is refused at first."""

    asked: list = []

    def do_GET(self):  # noqa: N802  (http.server's name)
        self.asked.append(self.path)
        if self.asked.count(self.path) % 2:
            self.send_response(503)
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *args):
        pass


def test_http_is_tried_again_and_each_shard_is_fetched_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01))
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))
    written(tmp_path / "shards", *SMALL)
    Faulty.asked = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Faulty, directory=tmp_path / "shards"))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{http.server_address[1]}"
    data = module(*SMALL, "dataset.transform.crop_size=[32, 32]", f"dataset.shards={address}")
    source = data.source("train")
    assert "503: Service Unavailable; next attempt in 0.01 s" in caplog.text
    names = [sample[0] for sample in epoch(source, data.transform, 0, 1)]
    assert len(set(names)) == 12
    http.shutdown()
    tars = [path for path in Faulty.asked if path.endswith(".tar")]
    assert len(tars) == 2 * len(set(tars)) == 8  # each once, and once more after a 503
    shutil.rmtree(tmp_path / "shards")
    assert source.read(0)  # from the cache


def read_all(source):
    assert all(source.read(index) for index in range(len(source)))


def test_processes_share_the_cache(bucket, tmp_path):
    source = shards_of(bucket).source("train")
    readers = [get_context("fork").Process(target=read_all, args=(source,)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert [reader.exitcode for reader in readers] == [0, 0, 0]
    assert len(cached(tmp_path)) == 4


def test_without_credentials_the_message_says_what_to_set(bucket, monkeypatch):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "nowhere")
    remote._s3_client.cache_clear()
    with pytest.raises(UserError, match="no credentials found; set AWS_ACCESS_KEY_ID"):
        remote.fetch_bytes("s3://any/thing")
