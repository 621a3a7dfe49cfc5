"""info: what a cloop image, a cowfile or a trace holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rich_click as click

from cowcloop.cli import console
from cowcloop.cli.base import JSON, PATH, command
from cowcloop.cli.device_options import options_of
from cowcloop.options import ImageKeywords
from cowcloop.part import Part
from cowcloop.sizes import format_size, size_in_full


@command("info")
@click.argument("file", type=PATH)
@options_of(ImageKeywords)
@JSON
def info_command(file: str, as_json: bool, **values: Any) -> None:
    """Show what a cloop image, a cowfile or a trace holds.

    For an ISO 9660 image it lists the cloop images in it. A trace is what --record-trace has
    written: which blocks of an image were read first.

    \b
    Examples:
      cowcloop info chicken
      cowcloop info chicken.cow --json
      cowcloop info knoppix.iso
      cowcloop info knoppix.iso:/KNOPPIX/KNOPPIX
      cowcloop info chicken.trace
    """
    from cowcloop import _core
    from cowcloop.source import locate, shown

    source = locate(file, **values)
    file = shown(file)
    kind = _core.sniff(source)
    place = source if isinstance(source, Part) and source.remote else file
    if kind == "raw" and (source == file or (isinstance(place, Part) and not place.ranges)):
        from cowcloop.iso9660 import contents, is_iso9660

        if is_iso9660(place):
            _iso9660(contents(place), as_json)
            return
    trace = _core.trace_info(source) if kind == "raw" else None
    if trace is not None:
        found = trace
    elif kind == "cowfile":
        found = _core.cow_info(file)
    else:
        found = {"image": file, **_core.image_info(source)}
    # The engine's name is for display: it loses bytes that are not UTF-8.
    found["path"] = file
    if as_json:
        console.result_json(found)
        return
    describe = {"cowfile": _cowfile, "cloop": _cloop, "trace": _trace}.get(found["type"], _raw)
    console.fields([("file", found["path"]), *describe(found)])


def _cloop(info: dict[str, Any]) -> list[tuple[str, str]]:
    codecs = ", ".join(f"{name} {count}" for name, count in info["codecs"].items() if count)
    return [
        ("type", f"{info['format']} image {info['version']}, {info['layout']} layout"),
        ("size", size_in_full(info["size"])),
        ("file size", size_in_full(info["file_size"])),
        ("ratio", f"{100 * info['ratio']:.1f} %"),
        ("blocks", f"{info['blocks']} of {size_in_full(info['block_size'])}"),
        ("codecs", codecs or "none"),
        ("zero blocks", str(info["zero_blocks"])),
        ("shared blocks", str(info["shared_blocks"])),
        ("index", size_in_full(info["index_bytes"])),
        ("compressed data", size_in_full(info["compressed_bytes"])),
    ]


def _cowfile(info: dict[str, Any]) -> list[tuple[str, str]]:
    share = 100 * info["blocks_used"] / info["blocks_total"] if info["blocks_total"] else 0.0
    return [
        ("type", f"cowfile version {info['version']}{', gzipped' if info['gzip'] else ''}"),
        ("state", str(info["state"])),
        ("layout", f"{info['word_size']}-bit, {info['byte_order']}-endian"),
        ("base size", size_in_full(info["base_size"])),
        ("base fingerprint", str(info["fingerprint"])),
        ("blocks in use", f"{info['blocks_used']} of {info['blocks_total']} ({share:.1f} %)"),
        ("mapunit", size_in_full(info["mapunit"])),
        ("bitmap", size_in_full(info["bitmap_bytes"])),
        ("data offset", str(info["data_offset"])),
        ("space taken", size_in_full(info["allocated"])),
    ]


def _trace(info: dict[str, Any]) -> list[tuple[str, str]]:
    from cowcloop.iso9660 import shown

    pairs = [
        ("type", "trace: the blocks of an image that were read first, in their order"),
        ("image", shown(info["image"])),
        ("image size", size_in_full(info["size"])),
        (
            "blocks",
            f"{info['blocks']} of {info['blocks_total']}, {size_in_full(info['block_size'])} each",
        ),
        ("bytes", f"{size_in_full(info['bytes'])} ({100 * info['share']:.1f} % of the image)"),
        ("runs", f"{info['runs']}, the last one after {info['last_run_ms'] / 1000:.1f} s"),
    ]
    if info["damaged_lines"]:
        pairs.append(("damaged lines", f"{info['damaged_lines']}, which are left out"))
    return pairs


def _iso9660(info: dict[str, Any], as_json: bool) -> None:
    from cowcloop.errors import ImageFormatError
    from cowcloop.iso9660 import shown

    if as_json:
        console.result_json(info)
    else:
        pairs = [
            ("file", info["path"]),
            ("type", "ISO 9660 image"),
            ("volume", shown(info["volume"])),
            ("size", size_in_full(info["size"])),
            ("cloop images", str(len(info["images"])) if info["readable"] else "not known"),
        ]
        console.fields(pairs)
        if info["images"]:
            console.result("")
            console.table(_IN_ISO, [_in_iso(image, shown) for image in info["images"]])
    if not info["readable"]:
        raise ImageFormatError(info["problem"])
    if info["problem"]:
        console.warning(info["problem"])
    if info["skipped"]:
        first, *more = info["skipped"]
        others = f" and {len(more)} more (see --json)" if more else ""
        path, reason = shown(first["path"]), first["reason"]
        console.warning(f"{path}{others}: not looked into: {reason}")


_IN_ISO = ("IMAGE", "KIND", "SIZE", "FILE SIZE")


def _in_iso(image: dict[str, Any], shown: Callable[[str], str]) -> tuple[str, ...]:
    name, file_size = shown(image["path"]), format_size(image["file_size"])
    if "error" in image:
        return name, "damaged", "-", file_size
    kind = f"{image['format']} {image['version']}"
    return name, kind, format_size(image["size"]), file_size


def _raw(info: dict[str, Any]) -> list[tuple[str, str]]:
    return [("type", "raw image"), ("size", size_in_full(info["size"]))]
