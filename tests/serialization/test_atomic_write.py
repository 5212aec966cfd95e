"""A save is there wholly or not at all: killed at any system call, at any moment, on a full or broken disk."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import CheckpointError
from microfw.serialization import atomic_write as durable
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def model(value, rows=4):
    dense = nn.Dense(rows, 100, rng=0)
    dense.weight.data = np.full((rows, 100), value, np.float32)
    return dense


def value_of(path):
    weight = mf.load(path).weight.numpy()
    assert (weight == weight[0, 0]).all()
    return int(weight[0, 0])


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture(params=["a.npz", "a.safetensors"])
def path(request, tmp_path):
    return tmp_path / request.param


def raises_once(function, error, nth=1):
    calls = []

    def failing(*arguments, **options):
        calls.append(1)
        if len(calls) == nth:
            raise error
        return function(*arguments, **options)

    return failing


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "listdir", "fstat"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), OSError(errno.ENOSPC, "No space left")])
def test_an_error_of_the_disk_leaves_the_old_file(path, call, error, monkeypatch):
    mf.save(path, model(1))
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(durable.os, call, raises_once(getattr(os, call), error))
        with pytest.raises(
            CheckpointError, match=f"saving .*: expected a folder that can be written to, got OSError .{error.strerror}"
        ):
            mf.save(path, model(2))
    assert path.read_bytes() == before
    mf.save(path, model(3))
    assert files(path.parent) == [path.name] and value_of(path) == 3


def test_a_folder_that_cannot_be_forced_to_the_disk_is_told(path, monkeypatch):
    mf.save(path, model(1))
    monkeypatch.setattr(durable.os, "fsync", raises_once(os.fsync, OSError(errno.EIO, "Input/output error"), 2))
    with pytest.raises(CheckpointError, match="the new file is complete and in place, but may not outlast a power cut"):
        mf.save(path, model(2))
    assert value_of(path) == 2


def test_a_device_that_is_full(path, monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    mf.save(path, model(1))
    before = path.read_bytes()
    temporary = str(path.parent / ".temporary")
    monkeypatch.setattr(durable, "_create", lambda *arguments: (os.open("/dev/full", os.O_WRONLY), temporary))
    with pytest.raises(CheckpointError, match="No space left on device"):
        mf.save(path, model(2, 4000))
    assert path.read_bytes() == before


def in_child(action):
    """Run something in a forked process, which a limit or a signal may end; return its exit code."""
    code = f"import sys; sys.path.append({str(ROOT)!r}); from tests.serialization.test_atomic_write import *; {action}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)


def test_a_limit_on_the_size_of_files(path):
    mf.save(path, model(1))
    before = path.read_bytes()
    done = in_child(
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); mf.save({str(path)!r}, model(2, 400))"
    )
    assert "CheckpointError" in done.stderr and "File too large" in done.stderr, done.stderr
    assert path.read_bytes() == before and files(path.parent) == [path.name]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(small_disk):
    path = small_disk / "a.npz"
    mf.save(path, model(1, 1000))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="got OSError .No space left on device.; nothing was changed"):
        mf.save(path, model(2, 2000))
    assert path.read_bytes() == before and files(small_disk) == ["a.npz"]


def test_a_folder_that_is_read_only(small_disk):
    path = small_disk / "a.npz"
    mf.save(path, model(1))
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    with pytest.raises(CheckpointError, match="Read-only file system"):
        mf.save(path, model(2))
    assert value_of(path) == 1


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="got FileNotFoundError"):
        mf.save(tmp_path / "none" / "a.npz", model(1))


def test_what_is_no_file_is_not_replaced(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    os.symlink("/dev/null", tmp_path / "device.npz")
    for name in ("folder", "pipe", "device"):
        with pytest.raises(CheckpointError, match="expected a file to replace, got a folder or a device"):
            mf.save(tmp_path / f"{name}.npz", model(1))
    assert len(files(tmp_path)) == 3


def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    real = tmp_path / "real.npz"
    mf.save(real, model(1))
    os.chmod(real, 0o640)
    os.symlink(real, tmp_path / "link.npz")
    mf.save(tmp_path / "link.npz", model(2))
    assert os.path.islink(tmp_path / "link.npz") and value_of(real) == 2
    assert os.stat(real).st_mode & 0o777 == 0o640


def test_what_killed_processes_left_is_swept_and_what_others_write_is_not(path):
    orphan, other = path.parent / f".{path.name}.0123abcd.partial", path.parent / f".x{path.name}.0123abcd.partial"
    orphan.write_text("cut short")
    other.write_text("of another file")
    descriptor, mine = durable._create(str(path.parent), path.name, None)  # another thread is writing
    mf.save(path, model(1))
    assert files(path.parent) == sorted([path.name, other.name, os.path.basename(mine)])
    os.close(descriptor)
    mf.save(path, model(2))
    assert files(path.parent) == sorted([path.name, other.name])


def test_threads_that_save_at_once_do_not_meet(path):
    wrong = []

    def saving(value):
        try:
            for _ in range(10):
                mf.save(path, model(value))
                assert value_of(path) in range(4)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=saving, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and files(path.parent) == [path.name]


def acknowledge(folder, count=10**9):
    """Save again and again, and after each note in a file of its own that it is done."""
    for k in range(count):
        mf.save(f"{folder}/a.npz", model(k))
        with open(f"{folder}/done", "a") as file:
            file.write(f"{k}\n")


def acknowledged(folder):
    path = Path(folder, "done")
    return int(["-1", *path.read_text().split()][-1]) if path.exists() else -1


def traced(path, listing, *options):
    """Save in a forked process, watched by strace from the first call on; return how it ended."""
    waits, release = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.read(waits, 1)
            mf.save(path, model(2))
        finally:
            os._exit(0)
    tracer = subprocess.Popen(["strace", "-o", listing, *options, "-p", str(child)], stderr=subprocess.DEVNULL)
    while "TracerPid:\t0" in Path(f"/proc/{child}/status").read_text():
        assert tracer.poll() is None, "strace could not attach"
        time.sleep(0.001)
    os.write(release, b"x")
    _, status = os.waitpid(child, 0)
    tracer.wait()
    os.close(waits)
    os.close(release)
    return os.waitstatus_to_exitcode(status)


MEMORY = {"mmap", "munmap", "mremap", "brk", "madvise"}  # calls that one run makes and the next may not


def kills_at_calls(folder):
    """Kill a save at its first system call, its second, …; print what was there then."""
    path = f"{folder}/a.npz"
    listing = f"{folder}.txt"
    mf.save(path, model(1))
    value_of(path)
    assert traced(path, listing) == 0 and value_of(path) == 2
    calls = [found[1] for line in Path(listing).read_text().splitlines() if (found := re.match(r"(\w+)\(", line))]
    assert {"openat", "flock", "write", "fsync", "rename"} <= set(calls)
    for k, name in enumerate(calls[1:-1], 1):  # without the one that it waits in, and the end
        if name in MEMORY:
            continue
        mf.save(path, model(1))
        inject = f"inject={name}:signal=SIGKILL:when={calls[: k + 1].count(name)}"
        code = traced(path, listing, "-e", inject)
        print(name, -code, value_of(path))
        assert len(files(folder)) <= 2
    mf.save(path, model(3))
    assert files(folder) == ["a.npz"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_killed_at_every_system_call(tmp_path):
    """What is there is the old file until it is renamed, and the new one then."""
    folder = tmp_path / "here"
    folder.mkdir()
    done = in_child(f"kills_at_calls({str(folder)!r})")
    assert done.returncode == 0, done.stderr
    ends = [line.split() for line in done.stdout.splitlines()]
    assert len(ends) > 20 and {code for _, code, _ in ends} == {"9"}, done.stdout
    values = [value for *_, value in ends]
    assert values == sorted(values) and set(values) == {"1", "2"}, done.stdout


def random_kills(folder, kills, seconds):
    """Kill forked processes that save continuously, at random moments; return how many kills there were."""
    rng = np.random.default_rng(0)
    began = time.monotonic()
    for done_kills in range(1, kills + 1):  # noqa: B007
        child = os.fork()
        if not child:
            try:
                acknowledge(folder)
            finally:
                os._exit(1)
        time.sleep(float(rng.uniform(0, 0.012)))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
        done = acknowledged(folder)
        if done >= 0:
            assert value_of(f"{folder}/a.npz") >= done, "a save was lost that had been acknowledged"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{folder}/done")
        if time.monotonic() - began > seconds:
            break
    mf.save(f"{folder}/a.npz", model(0))
    assert files(folder) == ["a.npz"]
    return done_kills


def killing(tmp_path, kills, seconds):
    done = in_child(f"print(random_kills({str(tmp_path)!r}, {kills}, {seconds}))")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_killed_at_random_moments(tmp_path):
    assert killing(tmp_path, 60, 4) > 5


@pytest.mark.slow
def test_killed_at_1000_random_moments(tmp_path):
    assert killing(tmp_path, 1000, 100) > 100
