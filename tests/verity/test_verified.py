"""Images that are verified as they are read, by every command that reads one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cowcloop as package
import pytest
from support import nbdclient
from support.programs import cowcloop, refused
from support.server import Server, attach, listed, serving

OTHER = "sha256:" + "0" * 64


@pytest.fixture
def whole(tmp_path: Path, chicken: Path) -> Path:
    """An image with its digest tree beside it."""
    image = tmp_path / "c.img"
    shutil.copyfile(chicken, image)
    cowcloop("digest", image, "--tree", tree_of(image))
    return image


@pytest.fixture
def damaged(whole: Path) -> Path:
    """The same, with a byte changed that no checksum of the format covers.

    The block's own checksum would find most others: this one is of the header's script.
    """
    with whole.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    return whole


def tree_of(image: Path) -> Path:
    return image.with_name(image.name + ".verity")


def damage(image: Path, offset: int) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x40]))


def test_a_whole_image_is_read_by_every_command(whole: Path, ext2: Path, tmp_path: Path) -> None:
    root = package.digest(whole)
    for options in ((), ("--verity", root), ("--verity", root.removeprefix("sha256:"))):
        cowcloop("verify", whole, *options)
        cowcloop("info", whole, *options)
        cowcloop("map", whole, *options)
        cowcloop("extract", whole, tmp_path / "out", *options)
        assert (tmp_path / "out").read_bytes() == ext2.read_bytes()
        with serving(whole, *options) as server:
            assert nbdclient.read_all(nbdclient.connect(server.uri)) == ext2.read_bytes()
    with package.open(whole, verity=root) as disk:
        assert disk.read() == ext2.read_bytes()


@pytest.mark.parametrize(
    "command", ["verify {}", "info {}", "map {}", "extract {} {}.out", "commit {} {}.cow {}.new"]
)
def test_a_changed_image_is_refused_by_every_command(damaged: Path, command: str) -> None:
    words = [word.replace("{}", str(damaged)) for word in command.split()]
    if words[0] == "commit":
        tree_of(damaged).rename(damaged.with_name("away"))
        package.open(damaged, words[2]).close()
        damaged.with_name("away").rename(tree_of(damaged))
    says = ("c.img", "at offset 0 ", "c.img.verity", "get the image again")
    refused(*words, says=says)


def test_a_changed_image_is_refused_by_servers(damaged: Path) -> None:
    refused("attach", damaged, says=("offset 0 ", "c.img.verity"))
    refused("serve", damaged, says=("offset 0 ", "c.img.verity"))
    assert listed() == []
    with pytest.raises(OSError, match=r"c\.img\.verity.*cowcloop\.digest") as caught:
        package.open(damaged)
    assert isinstance(caught.value, package.CowcloopError)


def test_a_bad_block_is_an_error_where_it_is_read_and_nowhere_else(
    whole: Path, ext2: Path, tmp_path: Path
) -> None:
    # The middle of the file lies in some block's data; the raw file shows which bytes.
    raw = tmp_path / "r.img"
    shutil.copyfile(ext2, raw)
    cowcloop("digest", raw, "--tree", tree_of(raw))
    damage(raw, 3_000_000)
    block = 3_000_000 // 4096 * 4096
    server = Server(raw)
    handle = nbdclient.connect(server.uri)
    for _ in range(2):
        with pytest.raises(nbdclient.module().Error) as caught:
            handle.pread(512, block + 512)
        assert caught.value.errno == "EIO"
    plain = ext2.read_bytes()
    assert handle.pread(block, 0) == plain[:block]
    rest = len(plain) - block - 4096
    assert handle.pread(rest, block + 4096) == plain[block + 4096 :]
    assert server.stop() == 0
    line = server.errors.splitlines()[0]
    assert f"its bytes at offset {block} are not those that" in line
    assert "r.img.verity" in line
    assert "cowcloop digest --tree" in line


def test_verify_lists_the_blocks_that_the_tree_does_not_know(whole: Path) -> None:
    size = whole.stat().st_size
    damage(whole, size // 2)
    done = cowcloop("verify", whole, "--json", expect=1)
    document = json.loads(done.stdout)
    assert document["bad_blocks"] >= 1
    assert "c.img.verity" in document["bad"][0]["reason"]


def test_a_tree_elsewhere_is_named(whole: Path, ext2: Path, tmp_path: Path) -> None:
    tree = tmp_path / "elsewhere"
    tree_of(whole).rename(tree)
    root = package.digest(whole)
    says = ("a digest is verified by its tree", "cowcloop digest IMAGE --tree FILE")
    refused("extract", whole, tmp_path / "out", "--verity", root, says=says)
    cowcloop("extract", whole, tmp_path / "out", "--verity", root, "--verity-tree", tree)
    uri = attach(whole, "--verity-tree", tree, "--verity", root)
    assert nbdclient.read_all(nbdclient.connect(uri)) == ext2.read_bytes()
    with package.serve(whole, verity=root, verity_tree=tree) as server:
        assert nbdclient.read_all(nbdclient.connect(server.uri)) == ext2.read_bytes()
    refused("verify", whole, "--verity-tree", tmp_path / "none", says=("none", "digest tree"))


def test_another_digest_is_refused_at_once(whole: Path) -> None:
    root = package.digest(whole)
    says = (f"comes to {root}", f"{OTHER} is asked for", "cowcloop digest")
    for command in ("verify", "attach", "info"):
        refused(command, whole, "--verity", OTHER, says=says)
    done = cowcloop("verify", whole, "--verity", "sha256:12", expect=2)
    assert "is not sha256: and 64 hexadecimal digits" in done.stderr.decode()
    with pytest.raises(ValueError, match="is not a digest"):
        package.open(whole, verity="12")
    with pytest.raises(package.MismatchError, match="is asked for"):
        package.open(whole, verity=OTHER)


def test_a_tree_that_is_not_this_images(whole: Path, chicken: Path, tmp_path: Path) -> None:
    tree = tree_of(whole)
    good = tree.read_bytes()
    root = package.digest(whole)
    for wrong in (b"", good[:-1], good + b"x", good[: len(good) // 2]):
        tree.write_bytes(wrong)
        refused("verify", whole, says=("c.img.verity", f"has {len(wrong)} bytes", "another image"))
    # A flipped bit: in the root's block the digest differs, below it the tree is damaged.
    for offset, says in ((0, "is asked for"), (len(good) - 4096, "is damaged at offset")):
        tree.write_bytes(good)
        damage(tree, offset)
        refused("extract", whole, tmp_path / "out", "--verity", root, says=("c.img.verity", says))
    assert not (tmp_path / "out").exists()
    tree.unlink()
    tree.mkdir()
    refused("verify", whole, says=("c.img.verity", "directory"))


def test_the_output_must_not_be_the_tree(whole: Path) -> None:
    before = tree_of(whole).read_bytes()
    refused("extract", whole, tree_of(whole), says="is also an input")
    assert tree_of(whole).read_bytes() == before


def test_an_image_in_an_iso_is_verified_by_a_tree_that_is_named(
    chicken: Path, ext2: Path, iso_of_chicken: Path, tmp_path: Path
) -> None:
    named = f"{iso_of_chicken}:/KNOPPIX/KNOPPIX"
    tree = tmp_path / "tree"
    cowcloop("digest", named, "--tree", tree)
    root = package.digest(chicken)
    options = ("--verity", root, "--verity-tree", tree)
    cowcloop("extract", named, tmp_path / "out", *options)
    assert (tmp_path / "out").read_bytes() == ext2.read_bytes()
    with serving(named, *options) as server:
        assert nbdclient.read_all(nbdclient.connect(server.uri)) == ext2.read_bytes()
    refused("verify", named, "--verity", OTHER, "--verity-tree", tree, says="is asked for")


def test_a_suspended_image_lets_go_of_its_tree_and_is_verified_anew(
    whole: Path, tmp_path: Path
) -> None:
    cow = tmp_path / "c.cow"
    uri = attach(whole, cow)
    handle = nbdclient.connect(uri)
    first = handle.pread(4096, 0)
    cowcloop("suspend", uri)
    tree = tree_of(whole)
    held = Path(f"/proc/{listed()[0]['pid']}/fd")
    names = {link.readlink() for link in held.iterdir() if link.is_symlink()}
    assert tree not in names
    assert whole not in names
    away = tmp_path / "away"
    tree.rename(away)
    refused("resume", uri, says="another image")
    away.rename(tree)
    cowcloop("resume", uri)
    assert handle.pread(4096, 0) == first


def test_the_status_says_what_was_verified(whole: Path) -> None:
    with package.open(whole) as disk:
        before = disk.status().verified_bytes
        assert before is not None
        assert before > 0
        disk.read()
        after = disk.status().verified_bytes
        size = whole.stat().st_size
        assert after == (size + 4095) // 4096 * 4096
        disk.seek(0)
        disk.read()
        assert disk.status().verified_bytes == after
    tree_of(whole).unlink()
    with package.open(whole) as disk:
        assert disk.status().verified_bytes is None
