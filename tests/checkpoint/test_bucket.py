"""Checkpoints in a bucket: what holds in a folder holds there, seen through a store of our own."""

import pathlib
import shutil

import jax
import numpy as np
import pytest

from experiments.runner.request import Request
from moe.checkpoint import history, places, restore
from moe.training import record
from tests.fakes.gcs import serve
from tests.fakes.states import ABSTRACT, MINE, restored, same, state, written

pytest.importorskip("gcsfs", reason="requirements-gs.txt is not installed")
# What orbax leaves unfinished when a file is damaged is nobody's to await.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

URL = "gs://bucket/runs/top1/seed0"
INSIDE = "bucket/runs/top1/seed0"


@pytest.fixture(scope="module")
def service():
    with serve() as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.settings().items():
            patch.setenv(name, value)
        yield found


@pytest.fixture
def empty(service):
    service.refuse = lambda method, name: False
    service.objects.clear()
    return service


@pytest.fixture(scope="module")
def saved(service):
    """The objects of the checkpoints of steps 0, 10 and 20."""
    service.objects.clear()
    assert written(URL, {0: None, 10: 3.0, 20: 2.0}) == [0, 10, 20]
    return dict(service.objects)


@pytest.fixture
def three(saved, empty):
    empty.objects.update(saved)
    return empty


def test_a_state_comes_back_bit_for_bit(three):
    (step, found), lines = restored(URL)
    assert step == 20 and lines == []
    same(found, state(20))
    same(restore.restore_params(URL, "best"), state(20)["params"])
    same(restore.restore_params(URL, 0), state(0)["params"])


def test_a_state_comes_back_onto_devices(three):
    devices = jax.sharding.Mesh(np.array(jax.devices()[:4]), "d")

    def spread(leaf):
        axes = jax.P("d") if leaf.ndim == 2 else jax.P()
        sharding = jax.NamedSharding(devices, axes)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    opened = history.Checkpoints(URL, MINE)
    _, found = opened.restore(jax.tree.map(spread, ABSTRACT))
    opened.close()
    assert found["params"]["w_AB"].sharding.spec == jax.P("d")
    same(found, state(20))


def test_the_last_the_best_and_the_first_are_kept(empty):
    losses = {0: None, 1: 2.0, 2: 1.0, 3: 4.0, 4: 3.0}
    assert written(URL, losses, keep_last=1) == [0, 2, 4]
    left = {name.removeprefix(INSIDE).split("/")[1] for name in empty.names()}
    assert left == {"0", "2", "4"}


def test_what_a_kill_left_is_not_used_and_cleared(three):
    for name in (f"{INSIDE}/20/commit_success.txt", f"{INSIDE}/30/state/d/0"):
        three.objects[name] = (10**6, b"")
    del three.objects[f"{INSIDE}/20/commit_success.txt"]
    (step, found), lines = restored(URL)
    assert step == 10 and lines == []
    same(found, state(10))
    assert places.at(URL).steps() == [0, 10] and not three.names(f"{INSIDE}/30")
    assert written(URL, {20: 1.0}) == [0, 10, 20]


def largest(service):
    return max(service.names(f"{INSIDE}/20/state"), key=lambda name: len(service.objects[name][1]))


def changed(change):
    def act(service):
        name = largest(service)
        service.put(name, change(service.objects[name][1]))

    return act


DAMAGE = {
    "one bit flipped": changed(lambda data: data[:500] + bytes([data[500] ^ 4]) + data[501:]),
    "cut off": changed(lambda data: data[: len(data) // 2]),
    "empty": changed(lambda data: b""),
    "deleted": lambda service: service.objects.pop(largest(service)),
    "no seal": lambda service: service.objects.pop(f"{INSIDE}/20/files.json"),
    "no record": lambda service: service.objects.pop(f"{INSIDE}/20/record/metadata"),
    "record of garbage": lambda service: service.put(f"{INSIDE}/20/record/metadata", b"\xff{"),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_named_and_the_checkpoint_before_is_used(how, three):
    DAMAGE[how](three)
    (step, found), lines = restored(URL)
    assert step == 10
    same(found, state(10))
    assert lines[0].startswith(f"{URL}/20: damaged (") and lines[0].endswith("kept as 20.damaged")
    assert lines[1] == f"{URL}: goes on from step 10"
    assert places.at(URL).steps() == [0, 10] and three.names(f"{INSIDE}/20.damaged/")
    written(URL, {20: 1.0})
    assert restored(URL)[0][0] == 20


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", "state/d/", "files.json", "commit_success.txt"])
def test_a_service_that_refuses_stops_a_save_with_one_line(part, three):
    opened = history.Checkpoints(URL, MINE)
    three.refuse = lambda method, name: method != "GET" and f"{INSIDE}/30/{part}" in name
    with pytest.raises(OSError, match="30: could not be saved .*; checkpoint 20 is kept") as error:
        opened.save(30, state(30))
        opened.wait()
    assert "\n" not in str(error.value)
    three.refuse = lambda how, name: False
    opened.close()
    assert restored(URL)[0][0] == 20 and places.at(URL).steps() == [0, 10, 20]


def test_copies_between_a_bucket_and_a_folder_are_whole(three, tmp_path):
    for name in three.names(INSIDE):
        file = tmp_path / name.removeprefix(f"{INSIDE}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(three.objects[name][1])
    same(restore.restore_params(tmp_path), state(20)["params"])
    shutil.rmtree(tmp_path)
    assert written(tmp_path, {7: None}) == [7]
    three.objects.clear()
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        three.put(f"{INSIDE}/{file.relative_to(tmp_path).as_posix()}", file.read_bytes())
    three.put(f"{INSIDE}/7/commit_success.txt", b"")
    same(restore.restore_params(URL), state(7)["params"])


def rows(count):
    return [{"kind": "train", "step": step, "loss": 1.0 / step} for step in range(1, count + 1)]


def test_the_record_follows_the_checkpoints(empty, tmp_path):
    place = places.at(URL)
    log = record.MetricsLog(_made(tmp_path / "one"), 0, copy=place)
    for row in rows(4):
        log.write(row)
    log.sync()
    log.write({"kind": "train", "step": 5, "loss": 0.0})  # after the save: lost with the machine
    log.close()
    for name, resumed in (("two", 4), ("three", 2)):
        record.MetricsLog(_made(tmp_path / name), resumed, copy=place).close()
        assert record.read(tmp_path / name / "metrics.jsonl") == rows(resumed)


def _made(directory: pathlib.Path) -> pathlib.Path:
    directory.mkdir()
    return directory


def asked(folder, checkpoints):
    """Where a request puts its checkpoints."""
    return Request("dense_topk_hash", folder, ["dense"], checkpoints=checkpoints).checkpoints


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("", "must be a folder or gs://BUCKET/PATH"),
        ("s3://bucket/x", "must be a folder or gs://BUCKET/PATH"),
        ("gs://bucket", "must be a folder or gs://BUCKET/PATH"),
        ("gs://b/x", "must be a folder or gs://BUCKET/PATH"),
        ("gs://bucket/a?b", "must be a folder or gs://BUCKET/PATH"),
        ("/dev/null/x", "/dev/null is a file, not a folder"),
    ],
)
def test_a_bad_place_is_one_line(tmp_path, given, line):
    with pytest.raises(ValueError) as error:
        asked(tmp_path, given)
    assert str(error.value) == f"--checkpoints={given}: {line}"


def test_a_bucket_that_is_not_there_is_one_line(empty, tmp_path):
    assert asked(tmp_path, f"{URL}/") == URL
    with pytest.raises(OSError, match="^gs://another/x: there is no such bucket$"):
        asked(tmp_path, "gs://another/x")
    empty.refuse = lambda method, name: True
    with pytest.raises(OSError, match="^gs://bucket/x: OSError: Forbidden: .*refused by the"):
        places.at("gs://bucket/x").read("", "file")


def test_a_bucket_needs_its_package(tmp_path, monkeypatch):
    from moe.checkpoint import bucket

    monkeypatch.setattr(bucket.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="^gs://bucket/x: needs a package: pip install -r requir"):
        asked(tmp_path, "gs://bucket/x")
