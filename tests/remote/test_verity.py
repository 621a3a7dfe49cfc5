"""Images at a URL that are verified by a digest tree, in a file or beside them on the server."""

from __future__ import annotations

from pathlib import Path

import cowcloop
import pytest
from cowcloop import _core
from cowcloop.part import Remote
from support import nbdclient, programs
from support.liar import Liar
from support.server import serving


def tree_of(data: bytes, folder: Path) -> Path:
    """The digest tree of an image with these bytes."""
    image, tree = folder / "image", folder / "tree"
    image.write_bytes(data)
    programs.cowcloop("digest", image, "--tree", tree)
    return tree


def test_an_image_is_verified_by_the_tree_alone_and_by_its_root(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path
) -> None:
    tree = tree_of(raw, tmp_path)
    for root in (None, cowcloop.digest(tmp_path / "image")):
        with cowcloop.open(server.url, verity=root, verity_tree=tree) as disk:
            assert disk.read() == raw
    with pytest.raises(cowcloop.MismatchError, match="is asked for"):
        cowcloop.open(server.url, verity="0" * 64, verity_tree=tree).close()


def test_a_block_that_the_tree_does_not_know_is_an_error(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path
) -> None:
    other = bytearray(raw)
    other[3_000_000] ^= 1
    tree = tree_of(bytes(other), tmp_path)
    with cowcloop.open(server.url, verity_tree=tree) as disk:
        assert disk.pread(1000, 0) == raw[:1000]
        with pytest.raises(OSError, match="at offset 2998272 "):
            disk.pread(1000, 3_000_000)


def test_what_is_kept_is_verified_once(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path
) -> None:
    tree = tree_of(raw, tmp_path)
    with cowcloop.open(server.url, verity_tree=tree) as disk:
        assert disk.read() == raw
    with cowcloop.open(server.url, verity_tree=tree) as disk:
        assert disk.pread(len(raw), 0) == raw
        before = disk.status().verified_bytes
        assert before is not None
        assert before >= len(raw)
        assert disk.pread(len(raw), 0) == raw
        assert disk.status().verified_bytes == before


def test_the_tree_beside_the_image_is_fetched_where_a_digest_pins_it(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path
) -> None:
    server.beside[".img.verity"] = tree_of(raw, tmp_path).read_bytes()
    root = cowcloop.digest(tmp_path / "image")
    with cowcloop.open(server.url) as disk:
        assert disk.pread(1000, 0) == raw[:1000]
    assert server.elsewhere == []
    with cowcloop.open(server.url + "?token=x", verity=root) as disk:
        # Changed on its way, once: it is fetched once more, and right.
        begin = len(server.asked)
        server.lie = lambda number, asked: "wrong" if number == begin else None
        assert disk.read() == raw
        status = disk.status()
        assert status.digest == root
        # One for each chunk that came with it, at most.
        assert 1 <= (status.verify_failures or 0) <= 16
    assert server.elsewhere[0] == "/images/a.img.verity?token=x"
    with pytest.raises(cowcloop.MismatchError, match="is asked for"):
        cowcloop.open(server.url, verity="0" * 64).close()
    # Another image's tree, and none at all.
    server.beside[".img.verity"] = bytes(4096)
    with pytest.raises(cowcloop.MismatchError, match=r"a\.img\.verity: has 4096 bytes"):
        cowcloop.open(server.url, verity=root, cache_dir=tmp_path / "other").close()
    server.beside.clear()
    with pytest.raises(cowcloop.CowcloopError, match="by its tree, and none is named"):
        cowcloop.open(server.url, verity=root, cache_dir=tmp_path / "third").close()


def test_a_tree_that_the_server_keeps_to_itself_is_none(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path
) -> None:
    server.beside[".img.verity"] = tree_of(raw, tmp_path).read_bytes()
    server.lets_in = lambda path, headers: not path.endswith(".verity")
    root = cowcloop.digest(tmp_path / "image")
    programs.cowcloop("pull", server.url, "--verity", root)
    programs.refused("pull", server.url, "--verity", "0" * 64, says="is asked for")
    with pytest.raises(cowcloop.CowcloopError, match="by its tree, and none is named"):
        cowcloop.open(server.url, verity=root).close()


def test_a_server_uses_the_tree_beside_the_image(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path
) -> None:
    server.beside[".img.verity"] = tree_of(raw, tmp_path).read_bytes()
    root = cowcloop.digest(tmp_path / "image")
    with serving(server.url, "--verity", root, quiet=False) as served:
        client = nbdclient.connect(served.uri)
        begin = len(server.asked)
        server.lie = lambda number, asked: "wrong" if number == begin else None
        assert bytes(client.pread(512, 3 << 20)) == raw[3 << 20 : (3 << 20) + 512]
        server.lie = lambda number, asked: "wrong"
        with pytest.raises(nbdclient.module().Error):
            client.pread(512, 4 << 20)
        client.shutdown()


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("to_file", [True, False])
def test_pull_checks_the_digest(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path, beside: bool, to_file: bool
) -> None:
    if beside:
        server.beside[".img.verity"] = tree_of(raw, tmp_path).read_bytes()
    else:
        (tmp_path / "image").write_bytes(raw)
    root = cowcloop.digest(tmp_path / "image")
    out = [tmp_path / "a.img"] if to_file else []
    server.lie = lambda number, asked: "wrong" if asked[0] > 3_000_000 else None
    said = "are not those that" if beside else "is asked for"
    told = programs.cowcloop("pull", server.url, *out, "--verity", root, expect=1)
    programs.one_line(told.stderr.decode().splitlines()[-1], said)
    assert not (tmp_path / "a.img").exists()
    # What was wrong is not gone on with.
    server.lie = lambda number, asked: None
    programs.cowcloop("pull", server.url, *out, "--verity", root)
    if to_file:
        assert (tmp_path / "a.img").read_bytes() == raw
    with cowcloop.open(server.url, offline=not to_file) as disk:
        assert disk.read() == raw
    other = server.url.replace("a.img", "b.img")
    programs.refused("pull", other, *out, "--force", "--verity", "0" * 64, says="is asked for")


@pytest.mark.parametrize("to_file", [True, False])
def test_what_a_pull_has_found_wrong_is_no_later_pull_s(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path, to_file: bool
) -> None:
    tree = tree_of(raw, tmp_path)
    out = [tmp_path / "a.img"] if to_file else []
    # On the server, though it is the same image by all that it says.
    broken = bytearray(raw)
    broken[3_000_000] ^= 1
    server.content = bytes(broken)
    pull: list[programs.Argument] = ["pull", server.url, *out]
    programs.refused(*pull, "--verity-tree", tree, "-q", says=("2998272", "are not those that"))
    server.content = raw
    begin = len(server.asked)
    programs.cowcloop(*pull)
    asked = server.asked[begin:]
    assert any(first <= 3_000_000 < end for first, end in asked)
    # What was right is gone on with.
    assert sum(end - first for first, end in asked) < len(raw) - 1_000_000
    if to_file:
        assert (tmp_path / "a.img").read_bytes() == raw
    with cowcloop.open(server.url, offline=not to_file) as disk:
        assert disk.read() == raw


@pytest.mark.parametrize("beside", [True, False])
def test_pull_tells_how_much_of_all_is_done(
    server: Liar, raw: bytes, cache: Path, tmp_path: Path, beside: bool
) -> None:
    tree = tree_of(raw, tmp_path)
    if beside:
        server.beside[".img.verity"] = tree.read_bytes()
    root = cowcloop.digest(tmp_path / "image")
    told: list[tuple[int, int | None]] = []
    options = Remote()
    _core.pull(server.url, options, None, verity=root, progress=lambda *now: told.append(now))
    # Without a tree it is fetched, and read then.
    assert told[-1] == ((1 if beside else 2) * len(raw),) * 2
