"""A directory becomes an ext2 filesystem: whole, sized to fit, and always the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from cowcloop.cli.create import place_beside
from cowcloop.ext2 import filesystem_of
from support.programs import cowcloop, cowcloop_path, one_line, program, refused, run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "empty").write_bytes(b"")
    (tree / "big").write_bytes(os.urandom(5_000_000))
    for number in range(300):
        (tree / "deep" / f"{'name' * 20}-{number}").write_text(f"{number}\n")
    os.link(tree / "big", tree / "deep" / "hard")
    (tree / "soft").symlink_to("deep/er")
    (tree / "long").symlink_to("x" * 200)
    (tree / "deep" / "er" / "ünï\n'\"$(x)").write_text("odd name")
    return tree


def digest(tree: Path) -> str:
    with filesystem_of(tree) as path:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_it_holds_the_tree(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with filesystem_of(tree, str(tmp_path)) as path:
        image.write_bytes(Path(path).read_bytes())
    run(program("e2fsck", "e2fsprogs"), "-fn", image)
    out = tmp_path / "out"
    out.mkdir()
    run(program("debugfs", "e2fsprogs"), "-R", f"rdump / {out}", image)
    (out / "lost+found").rmdir()
    compared = subprocess.run(["diff", "-r", "--no-dereference", tree, out], check=False)
    assert compared.returncode == 0
    # To fit: little more than its content.
    assert image.stat().st_size < 9_000_000
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "image", "out"}


def test_the_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    first = digest(tree)
    for path in (tree / "big", tree / "deep"):
        # Being read, or chmod'ed to what it was, is no change of content.
        status = path.stat()
        os.utime(path, ns=(1_700_000_000_000_000_000, status.st_mtime_ns))
    assert digest(tree) == first
    os.utime(tree / "empty", (1, 2))
    assert digest(tree) != first


@pytest.mark.parametrize("files", [0, 1, 5000])
def test_many_small_files(tmp_path: Path, files: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(files):
        (tree / str(number)).write_bytes(b"x" * (number % 3))
    image = tmp_path / "image"
    with filesystem_of(tree) as path:
        image.write_bytes(Path(path).read_bytes())
    run(program("e2fsck", "e2fsprogs"), "-fn", image)


def test_nothing_is_put_beside_a_device(tmp_path: Path) -> None:
    """Such as /dev/nbd0: /dev is no place for files, and small."""
    (tmp_path / "link").symlink_to("/dev/null")
    for out in ("/dev/null", str(tmp_path / "link"), "-"):
        assert place_beside(out) is None
    for name in ("new", "old"):
        assert place_beside(str(tmp_path / name)) == str(tmp_path)
        (tmp_path / "old").touch()


def test_create_takes_a_directory(tree: Path, tmp_path: Path) -> None:
    cowcloop("create", tree, tmp_path / "a")
    cowcloop("create", f"{tree}/", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    cowcloop("extract", tmp_path / "a", tmp_path / "raw")
    run(program("e2fsck", "e2fsprogs"), "-fn", tmp_path / "raw")


def test_a_place_that_is_full_is_named(tree: Path, tmp_path: Path, tiny_tmpfs: Path) -> None:
    """Not the directory, which has nothing to do with it."""
    line = refused("create", tree, tiny_tmpfs / "out", says=("no space", "OUT"))
    assert line.startswith(f"cowcloop: {tiny_tmpfs}: ")
    env = {"TMPDIR": str(tiny_tmpfs)}
    line = refused("create", tree, "-", says=("no space", "TMPDIR"), env=env)
    assert line.startswith(f"cowcloop: {tiny_tmpfs}: ")
    assert list(tiny_tmpfs.iterdir()) == []
    # What does not fit does not depend on where it goes.
    cowcloop("create", tree, tmp_path / "out", env=env)


def test_a_file_that_may_not_be_as_long(tree: Path, tmp_path: Path) -> None:
    limited = f"ulimit -f 100; {cowcloop_path()} create {tree} {tmp_path}/out"
    done = run("/bin/bash", "-c", limited, expect=1)
    one_line(done.stderr.decode(), ("File too large", "102400 bytes", "ulimit -f"))


def test_the_output_must_not_lie_in_the_tree(tree: Path, tmp_path: Path) -> None:
    link, inner = tmp_path / "link", tmp_path / "inner"
    link.symlink_to(tree / "deep")
    inner.symlink_to(tree / "new")
    (tree / "beside").symlink_to(tree.parent / "outer")
    for out in (tree / "new", tree / "deep" / "er" / "new", link / "new", "new"):
        refused("create", tree, out, cwd=tree, says=("outside", "OUT"))
    refused("create", tree, inner, says=("inner", "symbolic link to nothing"))
    refused("create", ".", "new", cwd=tree, says=("outside", "OUT"))
    refused("create", link, tree / "deep" / "new", says=("outside", "OUT"))
    env = {"TMPDIR": str(tree / "deep")}
    refused("create", tree, "-", says=("outside", "TMPDIR"), env=env)
    assert not (tree / "new").exists()
    # A name that begins alike is another one, and so is what a link leads to.
    outer = tmp_path / "outer"
    outer.write_bytes(b"old")
    for out in (tmp_path / "tree2", tree / "beside"):
        cowcloop("create", tree, out)
    assert outer.stat().st_size > 3


def test_without_mke2fs(tree: Path, tmp_path: Path) -> None:
    script = (
        "import cowcloop.programs, sys\n"
        "cowcloop.programs._SYSTEM_FOLDERS = '/nowhere'\n"
        "from cowcloop.cli import main\n"
        f"sys.exit(main(['create', {str(tree)!r}, {str(tmp_path / 'out')!r}]))\n"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PATH": "/nowhere"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == b"cowcloop: mke2fs is not installed: apt install e2fsprogs\n"
    assert not (tmp_path / "out").exists()


def test_without_nbdkit(tmp_path: Path) -> None:
    """The program itself comes from the distribution; its absence is named with the package."""
    image = tmp_path / "i"
    image.write_bytes(bytes(1 << 20))
    folder = tmp_path / "bin"
    folder.mkdir()
    import shutil
    import sys

    if shutil.which("nbdkit", path="/usr/local/sbin:/usr/sbin:/sbin"):
        pytest.skip("nbdkit lies in a folder that is always searched")
    (folder / "python3").symlink_to(sys.executable)
    refused(
        "serve",
        image,
        says="nbdkit is not installed: apt install nbdkit",
        env={"PATH": str(folder)},
    )
