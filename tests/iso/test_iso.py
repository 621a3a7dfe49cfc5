"""Images inside an ISO 9660 image, by every command."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import cowcloop
import pytest
from support import cloop, iso, nbdclient
from support.programs import cowcloop as program_cowcloop
from support.programs import one_line, program, refused, run
from support.server import attach, listed, serving

BLOCK = 4096
PLAIN = cloop.sample(40 * BLOCK, BLOCK)
OTHER = cloop.sample(20 * BLOCK, BLOCK)

#: genisoimage's options, and what it calls the two images and the text then.
KINDS = {
    "plain": ((), "/KNOPPIX/KNOPPIX", "/BOOT_DIR/SECOND_I.UZI", "/README.TXT"),
    "rock-ridge": (("-R",), "/KNOPPIX/KNOPPIX", "/boot dir/second image.uzip", "/readme.txt"),
    "joliet": (("-J",), "/KNOPPIX/KNOPPIX", "/boot dir/second image.uzip", "/readme.txt"),
    "both": (("-R", "-J"), "/KNOPPIX/KNOPPIX", "/boot dir/second image.uzip", "/readme.txt"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one ISO image of each kind; not to be written."""
    folder = tmp_path_factory.mktemp("made")
    tree = folder / "tree"
    (tree / "KNOPPIX").mkdir(parents=True)
    (tree / "boot dir").mkdir()
    (tree / "KNOPPIX/KNOPPIX").write_bytes(cloop.build(PLAIN, BLOCK))
    (tree / "boot dir/second image.uzip").write_bytes(cloop.build_uzip(OTHER, "Z", BLOCK))
    (tree / "readme.txt").write_bytes(b"hello\n" * 100)
    (tree / "empty").touch()
    for name, (options, *_) in KINDS.items():
        iso.make(tree, folder / f"{name}.iso", *options)
    return folder


@pytest.fixture
def disc(made: Path, tmp_path: Path) -> Path:
    """A copy of the one with both kinds of names."""
    return Path(shutil.copy(made / "both.iso", tmp_path / "cd.iso"))


@pytest.fixture
def image(disc: Path) -> str:
    return f"{disc}:/KNOPPIX/KNOPPIX"


@pytest.mark.parametrize("kind", KINDS)
def test_info_lists_the_images(made: Path, kind: str) -> None:
    _, first, second, _ = KINDS[kind]
    path = made / f"{kind}.iso"
    found = json.loads(program_cowcloop("info", path, "--json").stdout)
    assert (found["type"], found["path"]) == ("iso9660", str(path))
    assert (found["size"], found["volume"]) == (path.stat().st_size, "CDROM")
    assert found["problem"] is None
    images = {each["path"]: each for each in found["images"]}
    assert set(images) == {f"{path}:{first}", f"{path}:{second}"}
    assert images[f"{path}:{first}"]["format"] == "cloop"
    assert images[f"{path}:{first}"]["size"] == len(PLAIN)
    assert images[f"{path}:{second}"]["version"] == "Z4.0"
    assert images[f"{path}:{second}"]["file_size"] == len(cloop.build_uzip(OTHER, "Z", BLOCK))
    # Each path that is told is one that can be used.
    for name, each in images.items():
        assert each["image"] == name
        assert json.loads(program_cowcloop("info", name, "--json").stdout) == each


def test_info_for_people(made: Path) -> None:
    path = made / "rock-ridge.iso"
    lines = program_cowcloop("info", path).stdout.decode().splitlines()
    fields = dict(line.split(":", 1) for line in lines[:5])
    assert fields["type"].strip() == "ISO 9660 image"
    assert fields["cloop images"].strip() == "2"
    rows = [line.split("  ") for line in lines[6:]]
    assert rows[0][0] == "IMAGE"
    assert {row[0] for row in rows[1:]} == {
        f"{path}:/KNOPPIX/KNOPPIX",
        f"{path}:/boot dir/second image.uzip",
    }


def test_info_shows_what_is_damaged(tmp_path: Path) -> None:
    """A broken image is listed as such, and the sound one beside it as ever."""
    image = cloop.build(PLAIN, BLOCK)
    broken = bytearray(image)
    broken[128:132] = (1000).to_bytes(4, "big")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "good").write_bytes(image)
    (tree / "broken").write_bytes(broken)
    path = iso.make(tree, tmp_path / "cd.iso", "-R")
    images = json.loads(program_cowcloop("info", path, "--json").stdout)["images"]
    by_name = {each["path"].rpartition("/")[2]: each for each in images}
    assert by_name["good"]["blocks"] == 40
    assert "block_size" in by_name["broken"]["error"]
    assert "damaged" in program_cowcloop("info", path).stdout.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_leads_to_the_bytes(made: Path, kind: str) -> None:
    _, first, second, text = KINDS[kind]
    path = made / f"{kind}.iso"
    for name, plain in ((first, PLAIN), (first.lower(), PLAIN), (second, OTHER)):
        assert program_cowcloop("extract", f"{path}:{name}", "-").stdout == plain
    # A file that is not compressed is an image as well.
    got = program_cowcloop("extract", f"{path}:{text}", "-").stdout
    assert got == b"hello\n" * 100


@pytest.mark.parametrize(
    "name",
    [
        "/KNOPPIX/KNOPPIX.;1",
        "//KNOPPIX/./KNOPPIX",
        "/BOOT_DIR/SECOND_I.UZI",
        "/Boot Dir/SECOND_I.uzi",
    ],
)
def test_other_ways_to_write_a_path(made: Path, name: str) -> None:
    """Plain names work beside Rock Ridge's, components of no effect have none."""
    info = json.loads(program_cowcloop("info", f"{made}/both.iso:{name}", "--json").stdout)
    assert info["size"] == len(OTHER if "UZI" in name.upper() else PLAIN)


def test_verify_map_and_bench(disc: Path, image: str) -> None:
    assert program_cowcloop("verify", image).stdout.decode() == f"{image}: all 40 blocks are good\n"
    picture = program_cowcloop("map", image, "--check").stdout.decode()
    assert picture.startswith("KNOPPIX: 160.0 KiB")
    measured = json.loads(program_cowcloop("bench", image, "--runs", "1", "--json").stdout)
    assert (measured["image"], measured["size"]) == (image, len(PLAIN))


def test_damage_names_the_image_in_the_iso(disc: Path, image: str) -> None:
    data = bytearray(disc.read_bytes())
    at = data.index(cloop.build(PLAIN, BLOCK))
    data[at + len(cloop.build(PLAIN, BLOCK)) - 20] ^= 0xFF
    disc.write_bytes(data)
    done = program_cowcloop("verify", image, expect=1)
    assert one_line(done.stderr.decode()).startswith(f"cowcloop: {image}: 1 of 40 blocks")
    assert refused("extract", image, "-").startswith(f"cowcloop: {image}: block 39 at")
    with serving(image, quiet=False) as server:
        handle = nbdclient.connect(server.uri)
        with pytest.raises(nbdclient.module().Error):
            nbdclient.read_all(handle)
        handle.shutdown()
    assert f"cowcloop: {image}: block 39" in server.errors


def test_write_over_it_and_go_on(disc: Path, image: str, tmp_path: Path) -> None:
    before = hashlib.sha256(disc.read_bytes()).digest()
    cow, copy = tmp_path / "my.cow", tmp_path / "copy"
    io = program("qemu-io", "qemu-utils")
    with serving(image, cow) as server:
        run(program("nbdcopy", "libnbd-bin"), server.uri, copy)
        assert copy.read_bytes() == PLAIN
        run(io, "-f", "raw", "-c", "write -q -P 0x41 8k 3k", "-c", "flush", server.uri)
    with serving(image, cow) as server:
        run(io, "-f", "raw", "-c", "read -q -P 0x41 8k 3k", server.uri)
        run(io, "-f", "raw", "-c", "write -q -P 0x42 40k 4k", "-c", "flush", server.uri)
    changed = bytearray(PLAIN)
    changed[8192 : 8192 + 3072] = b"A" * 3072
    changed[40960 : 40960 + 4096] = b"B" * 4096
    assert program_cowcloop("extract", image, cow, "-").stdout == changed
    assert hashlib.sha256(disc.read_bytes()).digest() == before
    # The same image in a file of its own is the same base.
    alone = tmp_path / "alone"
    alone.write_bytes(cloop.build(PLAIN, BLOCK))
    assert program_cowcloop("extract", alone, cow, "-").stdout == changed

    new = tmp_path / "new.cloop"
    done = program_cowcloop("commit", "-v", image, cow, new)
    assert "37 blocks copied, 3 compressed" in done.stderr.decode()
    assert program_cowcloop("extract", new, "-").stdout == changed


def test_list_shows_where_it_is(disc: Path, image: str, tmp_path: Path) -> None:
    uri = attach(image, tmp_path / "c.cow")
    assert [device["image"] for device in listed()] == [image]
    assert image in program_cowcloop("list").stdout.decode()
    info = run(program("nbdinfo", "libnbd-bin"), uri).stdout.decode(errors="replace")
    assert f"description: {image} + " in info
    program_cowcloop("detach", uri)


def test_relative_names_stay_as_typed(disc: Path) -> None:
    """The server works in another directory, and says names as the user wrote them."""
    folder = disc.parent
    line = refused("serve", "cd.iso:/KNOPPIX/X", cwd=folder)
    assert line.startswith("cowcloop: cd.iso:/KNOPPIX/X: no such file")
    printed = program_cowcloop("serve", "cd.iso:/KNOPPIX/KNOPPIX", "--print-command", cwd=folder)
    words = printed.stdout.decode().split()
    assert f"image={disc}" in words
    assert f"image-name={disc}:/KNOPPIX/KNOPPIX" in words
    assert sum(word.startswith("image-range=") for word in words) == 1


def test_suspend_and_resume(disc: Path, image: str, tmp_path: Path) -> None:
    """The disc is taken out and put in again; another one is refused."""
    uri = attach(image, ":memory:")
    program_cowcloop("suspend", uri)
    away = disc.with_name("away.iso")
    disc.rename(away)
    refused("resume", uri, says="cannot open the image")
    tree = tmp_path / "tree"
    (tree / "KNOPPIX").mkdir(parents=True)
    (tree / "KNOPPIX/KNOPPIX").write_bytes(cloop.build(OTHER * 2, BLOCK))
    (tree / "first").write_bytes(bytes(100_000))
    iso.make(tree, disc, "-R")
    refused("resume", uri, says="another image")
    shutil.copy(away, disc)
    program_cowcloop("resume", uri)
    handle = nbdclient.connect(uri)
    assert nbdclient.read_all(handle) == PLAIN
    handle.shutdown()
    program_cowcloop("detach", uri)


def test_sessions_share_it(image: str, tmp_path: Path) -> None:
    with serving(image, "--sessions", tmp_path / "class") as server:
        anna = server.uri.replace("nbd+unix:///", "nbd+unix:///anna")
        handle = nbdclient.connect(anna)
        handle.pwrite(b"anna", 0)
        assert handle.pread(8, 0) == b"anna" + PLAIN[4:8]
        handle.shutdown()
    assert (tmp_path / "class/anna.cow").exists()


def test_the_iso_is_never_written(disc: Path, image: str, tmp_path: Path) -> None:
    before = disc.read_bytes()
    cow = tmp_path / "c.cow"
    cowcloop.open(image, cow).close()
    link = tmp_path / "link"
    link.symlink_to(disc)
    for out in (disc, link):
        refused("extract", image, out, says="also an input")
        refused("commit", image, cow, out, says="also an input")
        refused("map", image, "--svg", out, says="replace an input")
    with disc.open("r+b") as whole:
        done = run("cat", disc, expect=0).stdout
        assert done == before == whole.read()


def test_an_iso_as_a_raw_image(disc: Path) -> None:
    """Named without a path, it is a plain image as ever."""
    assert program_cowcloop("extract", disc, "-").stdout == disc.read_bytes()
    with serving(disc) as server:
        assert nbdclient.connect(server.uri).get_size() == disc.stat().st_size


def test_a_block_device(disc: Path, loop: None) -> None:
    """As /dev/sr0 would be."""
    device = run("losetup", "-r", "-f", "--show", disc).stdout.decode().strip()
    try:
        image = f"{device}:/KNOPPIX/KNOPPIX"
        assert program_cowcloop("extract", image, "-").stdout == PLAIN
        found = json.loads(program_cowcloop("info", device, "--json").stdout)
        assert image in [each["path"] for each in found["images"]]
        with serving(image) as server:
            handle = nbdclient.connect(server.uri)
            assert nbdclient.read_all(handle) == PLAIN
            handle.shutdown()
    finally:
        run("losetup", "-d", device)


def test_a_file_of_exactly_this_name_comes_first(disc: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cd.iso:" / "KNOPPIX"
    folder.mkdir(parents=True)
    (folder / "KNOPPIX").write_bytes(cloop.build(OTHER, BLOCK))
    image = f"{tmp_path}/cd.iso:/KNOPPIX/KNOPPIX"
    assert program_cowcloop("extract", image, "-").stdout == OTHER


def test_python(disc: Path, image: str, tmp_path: Path) -> None:
    with cowcloop.open(Path(image), tmp_path / "p.cow") as disk:
        assert disk.read() == PLAIN
        assert disk.name == disk.status().image == image
        disk.pwrite(b"changed", 5000)
        disk.flush()
        assert disk.pread(9, 4999) == PLAIN[4999:5000] + b"changed" + PLAIN[5007:5008]
    opened = cowcloop.CloopImage(image)
    info = opened.info()
    assert (info.path, info.blocks, info.size) == (image, 40, len(PLAIN))
    assert opened.verify().ok
    with cowcloop.serve(image, tmp_path / "p.cow") as server:
        assert nbdclient.connect(server.uri).pread(7, 5000) == b"changed"
    with pytest.raises(cowcloop.NotFoundError, match="did you mean /KNOPPIX/KNOPPIX"):
        cowcloop.open(f"{disc}:/KNOPPIX/KNOPIX")
    with pytest.raises(cowcloop.ImageFormatError, match="not a cloop or uzip image"):
        cowcloop.CloopImage(f"{disc}:/readme.txt").info()


@pytest.mark.parametrize(
    "name",
    [
        "cd.iso:/a\0b",
        "cd.iso\0:/a",
        "cd.iso:/\udcff\udcfe",
        "cd.iso:/\ud800",
        "missing:/" + "x" * 9999,
    ],
)
def test_strange_names_from_python(disc: Path, name: str) -> None:
    with pytest.raises(cowcloop.CowcloopError) as caught:
        cowcloop.open(f"{disc.parent}/{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cd.iso:/KNOPPIX/KNOPIX", "no such file in the ISO image: did you mean /KNOPPIX/KNOPPIX?"),
        ("cd.iso:/zzz", "no such file in the ISO image: / holds"),
        ("cd.iso:/readme.txt/x", "/readme.txt is a file"),
        ("cd.iso:/KNOPPIX", "this is a directory: name a file in it (KNOPPIX)"),
        ("cd.iso:/", "this is a directory"),
        ("cd.iso:/empty", "the file is empty"),
        ("cd.iso:/KNOPPIX/../KNOPPIX/KNOPPIX", "write the path without '..'"),
        ("no.iso:/KNOPPIX", "no such file, nor is there an ISO image"),
        (":/KNOPPIX", "no such file, nor is there an ISO image before the colon"),
        ("folder:/KNOPPIX", "folder is a directory, not an ISO image"),
        ("notes:/KNOPPIX", "notes: not an ISO 9660 image"),
        ("cut.iso:/KNOPPIX/KNOPPIX", "lies beyond the end of"),
        ("pipe:/KNOPPIX", "neither a file nor a block device"),
        ("/dev/null:/KNOPPIX", "neither a file nor a block device"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "extract", "info"])
def test_what_is_refused(
    disc: Path, tmp_path: Path, runtime: Path, command: str, name: str, says: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes").write_bytes(b"notes" * 20_000)
    os.mkfifo(tmp_path / "pipe")
    data = disc.read_bytes()
    at = data.index(cloop.build(PLAIN, BLOCK))
    (tmp_path / "cut.iso").write_bytes(data[: at + 100])
    out = ["out"] if command == "extract" else []
    line = refused(command, name, *out, cwd=tmp_path)
    assert says in line
    assert not (tmp_path / "out").exists()
    assert list(runtime.glob("cowcloop/*")) == []


def test_permission(disc: Path, tmp_path: Path, root: None) -> None:
    """A user that may not read the ISO gets an error that says so."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    shutil.copy(disc, folder / "cd.iso")
    script = (
        "import os, sys\n"
        "from cowcloop.source import locate\n"
        "from cowcloop import AccessError\n"
        "os.setuid(65534)\n"
        "try: locate(sys.argv[1])\n"
        "except AccessError as error: print(error)\n"
    )
    done = run(sys.executable, "-c", script, f"{folder}/cd.iso:/KNOPPIX/KNOPPIX")
    assert "Permission denied" in done.stdout.decode()
