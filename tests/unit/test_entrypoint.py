"""Programs that cannot be started are named at build time."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace

import pytest

from fcbuild.build import entrypoint
from fcbuild.build.entrypoint import Surroundings
from fcbuild.build.tree import Node, Tree
from fcbuild.errors import BuildError

PATH = "/usr/bin:/bin"
MUSL = "/lib/ld-musl-x86_64.so.1"


def elf(
    machine: int = 62, *, interpreter: str | None = None, word: int = 2, big: bool = False
) -> bytes:
    """The beginning of a program, as elf(5) has it."""
    order = ">" if big else "<"
    table = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 0, 0, 0)
    data = b""
    if interpreter is not None:
        data = interpreter.encode() + b"\0"
        table += struct.pack("<IIQQQQQQ", 3, 4, 64 + 2 * 56, 0, 0, len(data), len(data), 1)
    ident = b"\x7fELF" + bytes([word, 2 if big else 1, 1]) + bytes(9)
    header = struct.pack(
        f"{order}HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, len(table) // 56, 0, 0, 0
    )
    return ident + header + table + data


Files = dict[str, bytes | str | Node]


def image(
    files: Files,
    path: str = PATH,
    workdir: str = "/srv",
    hidden: tuple[str, ...] = ("proc", "vol"),
) -> Surroundings:
    """An image of executable files (bytes), links (text) and what else is given as a node."""
    content: dict[int, bytes] = {}
    tree = Tree(lambda node, offset, size: content[node.inode][offset : offset + size])
    for number, (name, data) in enumerate(files.items()):
        if isinstance(data, bytes):
            content[number] = data
            tree.nodes[name] = Node("file", 0o755, inode=number, size=len(data))
        else:
            tree.nodes[name] = Node("link", 0o777, data) if isinstance(data, str) else data
    return Surroundings(tree, path, workdir, hidden)


DIRECTORY = Node("directory", 0o755)
PLAIN = Node("file", 0o644)

STARTED: dict[str, tuple[str, Files]] = {
    "static": ("/app", {"app": elf()}),
    "dynamic": ("/app", {"app": elf(interpreter=MUSL), MUSL[1:]: elf()}),
    "interpreter through links": (
        "/app",
        {"app": elf(interpreter="/lib64/ld.so"), "lib64": "usr/lib", "usr/lib/ld.so": elf()},
    ),
    "in the PATH": ("app", {"bin/app": elf()}),
    "in the PATH behind a link": ("app", {"bin": "usr/bin", "usr/bin/app": elf()}),
    "not the first in the PATH": ("app", {"usr/bin/app": PLAIN, "bin/app": elf()}),
    "a directory first": ("app", {"usr/bin/app": DIRECTORY, "bin/app": elf()}),
    "from the working directory": ("./app", {"srv/app": elf()}),
    "a link": ("/app", {"app": "../x/./y", "x/y": elf()}),
    "a script": ("/run", {"run": b"#!/bin/sh\nexit", "bin/sh": elf()}),
    "a script with arguments": ("/run", {"run": b"#! \t/bin/sh -e\n", "bin/sh": elf()}),
    "a script of one line": ("/run", {"run": b"#!/bin/sh", "bin/sh": elf()}),
    "a script of a script": (
        "/run",
        {"run": b"#!/bin/two\n", "bin/two": b"#!/bin/sh\n", "bin/sh": elf()},
    ),
    "only for its group": ("/app", {"app": Node("file", 0o010, inode=1, size=99), "x": elf()}),
    "in a volume": ("/vol/app", {}),
    "behind a link into a volume": ("/app", {"app": "/vol/app"}),
    "in the kernel's files": ("/proc/self/exe", {}),
    "in a PATH with a volume": ("app", {}),
    "an interpreter in a volume": ("/app", {"app": elf(interpreter="/vol/ld.so")}),
}


@pytest.mark.parametrize("case", STARTED)
def test_a_program_that_can_be_started_is_no_error(case: str) -> None:
    program, files = STARTED[case]
    path = "/vol/bin:/bin" if "PATH with a volume" in case else PATH
    entrypoint.check(program, image(files, path), "Dockerfile:7")


@pytest.mark.parametrize(("machine", "wanted"), [(183, "aarch64"), (62, "x86_64")])
def test_a_program_is_for_the_images_architecture(machine: int, wanted: str) -> None:
    for arch in ("x86_64", "aarch64"):
        within = replace(image({"app": elf(machine)}), arch=arch)
        if arch == wanted:
            entrypoint.check("/app", within, "Dockerfile:7")
        else:
            with pytest.raises(BuildError, match=f"built for {wanted}, .* platform is {arch}"):
                entrypoint.check("/app", within, "Dockerfile:7")


REFUSED: dict[str, tuple[str, Files, str]] = {
    "missing": ("/app", {}, "/app: not found in the image"),
    "missing in the PATH": (
        "app",
        {"srv/app": elf()},
        f"app: not found in the image's PATH ({PATH})",
    ),
    "a link to nowhere": ("/app", {"app": "/gone"}, "/app: not found in the image"),
    "a link to itself": ("/app", {"app": "app"}, "/app: not found in the image"),
    "below a file": ("/bin/sh/app", {"bin/sh": elf()}, "/bin/sh/app: not found in the image"),
    "not executable": ("/app", {"app": PLAIN}, "/app: not executable (mode 0644)"),
    "not executable in the PATH": (
        "app",
        {"usr/bin/app": PLAIN},
        "/usr/bin/app: not executable (mode 0644)",
    ),
    "a directory": ("/app", {"app": DIRECTORY}, "/app: a directory, not a program"),
    "the root": ("/", {}, "/: a directory, not a program"),
    "aarch64": (
        "/app",
        {"app": elf(183)},
        "/app: built for aarch64, the image's platform is x86_64",
    ),
    "i386": ("/app", {"app": elf(3, word=1)}, "/app: built for i386, the image's"),
    "s390x": ("/app", {"app": elf(22, big=True)}, "/app: built for s390x, the image's"),
    "x32": ("/app", {"app": elf(word=1)}, "/app: built for x32, the image's"),
    "of a strange machine": ("/app", {"app": elf(999)}, "/app: built for machine 999, the"),
    "cut off": ("/app", {"app": elf()[:30]}, "/app: an ELF program that is cut off"),
    "no loader": (
        "/app",
        {"app": elf(interpreter=MUSL)},
        f"/app: interpreter {MUSL} not found in the image",
    ),
    "a loader that leads nowhere": (
        "/app",
        {"app": elf(interpreter=MUSL), MUSL[1:]: "libc.so"},
        f"/app: interpreter {MUSL} not found in the image",
    ),
    "a loader of another machine": (
        "/app",
        {"app": elf(interpreter=MUSL), MUSL[1:]: elf(183)},
        f"{MUSL}: built for aarch64",
    ),
    "a loader that is not executable": (
        "/app",
        {"app": elf(interpreter=MUSL), MUSL[1:]: PLAIN},
        f"/app: interpreter {MUSL} is not executable",
    ),
    "no shell": (
        "/run",
        {"run": b"#!/bin/sh\n"},
        "/run: interpreter /bin/sh not found in the image",
    ),
    "no shell's loader": (
        "/run",
        {"run": b"#!/bin/sh\n", "bin/sh": elf(interpreter=MUSL)},
        f"/bin/sh: interpreter {MUSL} not found in the image",
    ),
    "line ends of Windows": ("/run", {"run": b"#!/bin/sh\r\n", "bin/sh": elf()}, "carriage return"),
    "no interpreter": ("/run", {"run": b"#! \n/bin/sh", "bin/sh": elf()}, "names no interpreter"),
    "text": ("/run", {"run": b"echo hi\n"}, "/run: neither a program (ELF) nor a script"),
    "empty": ("/run", {"run": b""}, "/run: neither a program (ELF) nor a script"),
    "an empty word": ("", {"usr/bin": DIRECTORY}, "/usr/bin/: a directory, not a program"),
    "a terminal's commands": ("/a\x1b[2J", {}, "/a\\x1b[2J: not found"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_program_that_cannot_be_started_is_named_with_its_place_and_a_hint(case: str) -> None:
    program, files, said = REFUSED[case]
    with pytest.raises(BuildError) as caught:
        entrypoint.check(program, image(files), "Dockerfile:7")
    assert caught.value.message.startswith("Dockerfile:7: ")
    assert said in caught.value.message
    assert caught.value.hint


def test_interpreters_of_interpreters_end_somewhere() -> None:
    entrypoint.check("/run", image({"run": b"#!/run\n"}), "Dockerfile")


@pytest.mark.parametrize("at", [32, 54, 64 + 56 + 8, 64 + 56 + 32])
def test_numbers_that_lead_out_of_the_file_do_no_harm(at: int) -> None:
    program = bytearray(elf(interpreter=MUSL))
    program[at : at + 2] = b"\xff\xff"
    program[at + 7 : at + 8] = b"\xff"
    within = image({"app": bytes(program), MUSL[1:]: elf()})
    with contextlib.suppress(BuildError):
        entrypoint.check("/app", within, "Dockerfile")
