"""What the module of dracut decides, without dracut: its functions, with stand-ins for dracut's."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.guest.initramfs import busybox
from support.programs import ROOT, program, run

MODULE = ROOT / "contrib/dracut/90cowcloop"

# dracut's functions tell what they are called with.
BEGIN = """
moddir={module} initdir={folder}/made dracutsysrootdir={folder}/sysroot systemdutildir=/systemd
for name in dwarning inst_binary inst_simple inst_multiple inst_hook inst_script instmods \\
    dracut_need_initqueue; do
    eval "$name() {{ echo \\"$name \\$*\\"; }}"
done
. {module}/module-setup.sh
"""


def _shell(folder: Path) -> Path:
    place = folder / "bin/busybox"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(busybox().read_bytes())
    place.chmod(0o755)
    return place


def _module(folder: Path, script: str) -> list[str]:
    place = folder / "sysroot/usr/lib/cowcloop"
    place.mkdir(parents=True)
    (place / "boot").symlink_to(ROOT / "contrib/boot")
    begin = BEGIN.format(module=MODULE, folder=folder)
    return run("bash", "-c", begin + script).stdout.decode().splitlines()


@pytest.mark.parametrize("there", [True, False])
def test_the_network_is_no_condition(tmp_path: Path, there: bool) -> None:
    answer = "true" if there else "false"
    said = _module(tmp_path, f"check_module() {{ {answer}; }}; depends")
    assert " ".join(said).split() == ["base", "fs-lib", *(["network"] if there else [])]


@pytest.mark.parametrize(("there", "code"), [("true", "0"), ("false", "1")])
def test_without_busybox_there_is_no_module(tmp_path: Path, there: str, code: str) -> None:
    assert _module(tmp_path, f"require_binaries() {{ {there}; }}; check; echo $?") == [code]
    (mount_needs,) = _module(tmp_path / "other", "mount_needs=1; check; echo $?")
    assert mount_needs == "1"


@pytest.mark.parametrize("modules", ["", "network", "network systemd-initrd"])
def test_what_is_installed(tmp_path: Path, modules: str) -> None:
    begin = f"PATH={_shell(tmp_path).parent}:$PATH\n"
    begin += f'dracut_module_included() {{ [[ " {modules} " == *" $1 "* ]]; }}\n'
    said = _module(tmp_path, f"{begin}install\ninstallkernel")
    listed = (tmp_path / "made/usr/lib/cowcloop/home.list").read_text().splitlines()
    assert {"/usr/bin/busybox", "/usr/bin/cowcloopd"} <= set(listed)
    assert f"inst_binary {tmp_path}/bin/busybox /usr/bin/busybox" in said
    warned = [line for line in said if line.startswith("dwarning")]
    assert len(warned) == ("network" not in modules), said
    generators = [line for line in said if "dracut-cowcloop-generator" in line]
    assert len(generators) == ("systemd" in modules), said
    assert [line for line in said if line.startswith("instmods ublk_drv fuse loop nbd ")]
    # Each file that is named is there.
    for line in said:
        for word in line.split():
            if word.startswith(str(MODULE)):
                assert Path(word).is_file()


def _parse(folder: Path, root: str) -> list[str]:
    (folder / "initqueue/finished").mkdir(parents=True)
    script = f"""
        getarg() {{ echo '{root}'; }}
        hookdir={folder} root= rootok= netroot=
        . {MODULE}/parse-root.sh
        echo "$root"
        echo "$rootok"
        echo "$netroot"
    """
    return run(_shell(folder), "sh", "-c", script).stdout.decode().splitlines()


def test_a_root_on_a_medium_needs_no_network(tmp_path: Path) -> None:
    root = "cowcloop:LABEL=X/root.cloop,cow=ram"
    assert _parse(tmp_path, root) == [root, "1", ""]
    assert not list(tmp_path.glob("initqueue/finished/*"))


@pytest.mark.parametrize("url", ["http://a/b", "https://a/b", "nbd://a/b"])
def test_a_root_elsewhere_needs_the_network(tmp_path: Path, url: str) -> None:
    root = f"cowcloop:{url},cow=ram"
    assert _parse(tmp_path, root) == [root, "1", root]
    (waits,) = tmp_path.glob("initqueue/finished/*")
    # dracut reads it again and again until it succeeds.
    text = waits.read_text().replace("/tmp/cowcloop.network", f"{tmp_path}/network")
    text = text.replace("/run/systemd/", f"{tmp_path}/")
    again = (str(_shell(tmp_path)), "sh", "-c", text)
    assert run(*again, expect=None).returncode == 1
    (tmp_path / "network").write_text("eth0\n")
    run(*again)


@pytest.mark.parametrize("root", ["", "LABEL=X", "nbd:a:b", "/dev/vda1"])
def test_another_root_is_left_alone(tmp_path: Path, root: str) -> None:
    assert _parse(tmp_path, root) == [root, "", ""]


@pytest.mark.parametrize(("root", "made"), [("cowcloop:LABEL=X/a", True), ("LABEL=X", False)])
def test_systemd_is_told_of_the_root(tmp_path: Path, root: str, made: bool) -> None:
    library = tmp_path / "dracut-lib.sh"
    library.write_text(f"getarg() {{ echo '{root}'; }}\n")
    text = (MODULE / "generator.sh").read_text().replace("/lib/dracut-lib.sh", str(library))
    units = tmp_path / "early"
    run(_shell(tmp_path), "sh", "-c", text, "generator", tmp_path / "normal", units)
    assert (units / "sysroot.mount").exists() == made
    assert (units / "initrd-root-fs.target.requires/sysroot.mount").exists() == made


def test_shellcheck_finds_no_fault() -> None:
    files = [path for path in (ROOT / "contrib").glob("**/*") if path.is_file()]
    scripts = [path for path in files if "systemd" not in path.parts]
    # Variables that one file sets and another reads.
    words = ("--severity=warning", "--exclude=SC2034,SC2154")
    run(program("shellcheck", "shellcheck"), *words, *scripts)
