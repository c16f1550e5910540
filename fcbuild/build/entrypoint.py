"""Whether a program can be started at all, as far as the image's files tell.

What the kernel would refuse in the guest is told at build time: a program that is not there, that
nobody may execute, that is for another architecture, or whose interpreter is missing.
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Collection
from dataclasses import dataclass

from fcbuild.build.tree import Node, Tree, printable
from fcbuild.errors import BuildError
from fcbuild.series import DEBIAN_ARCH, X86_64

_HEAD = 256  # bytes that the kernel looks at: BINPRM_BUF_SIZE, linux/binfmts.h
_MAX_DEPTH = 4  # interpreters of interpreters
_MAX_INTERPRETER = 4096  # bytes of a path

_A_PROGRAM = (
    "the first word of ENTRYPOINT and CMD is a program of the image; for a line of shell write "
    'CMD ["/bin/sh", "-c", "..."], which needs a shell in the image'
)
_A_SCRIPT = 'begin it with a line like "#!/bin/sh"'

# elf(5)
_ELF_HEADER = struct.Struct("<16xHHIQQQIHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_PT_INTERP = 3
_ELF64, _LITTLE = 2, 1
_MACHINES = {
    3: "i386",
    8: "mips",
    20: "powerpc",
    21: "powerpc64",
    22: "s390x",
    40: "arm",
    62: X86_64,
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}


@dataclass(frozen=True)
class Surroundings:
    """What a program is looked for in.

    path: the PATH. workdir: what relative paths start from. hidden: names of directories whose
    content in the guest is not what the image has there. arch: the architecture of its programs.
    """

    tree: Tree
    path: str
    workdir: str
    hidden: Collection[str]
    arch: str = X86_64

    def unseen(self, name: str) -> bool:
        return any(name == top or name.startswith(f"{top}/") for top in self.hidden)


def check(program: str, within: Surroundings, where: str) -> None:
    """Raise BuildError when the program cannot be started; what cannot be seen is no error.

    where: the place in the Dockerfile that names it.
    """
    paths = [program]
    if "/" not in program:
        paths = [posixpath.join(part, program) for part in within.path.split(":")]
    refused: tuple[str, Node] | None = None
    for path in paths:
        name = within.tree.resolve(path, within.workdir)
        if name is not None and within.unseen(name):
            return
        node = None if name is None else within.tree.nodes.get(name)
        if node is None:
            continue
        if _executable(node):
            _check_file(path, node, within, where, depth=0)
            return
        refused = refused or (path, node)
    if refused is None:
        place = "the image" if "/" in program else f"the image's PATH ({printable(within.path)})"
        raise BuildError(
            f"{where}: {printable(program)}: not found in {place}",
            hint=_A_PROGRAM,
        )
    path, node = refused
    if node.kind != "file":
        raise BuildError(
            f"{where}: {printable(path)}: a {node.kind}, not a program", hint=_A_PROGRAM
        )
    raise BuildError(
        f"{where}: {printable(path)}: not executable (mode {node.mode:04o})",
        hint="RUN chmod +x it, or COPY --chmod=755",
    )


def _executable(node: Node) -> bool:
    return node.kind == "file" and bool(node.mode & 0o111)


def _check_file(path: str, node: Node, within: Surroundings, where: str, *, depth: int) -> None:
    head = within.tree.data(node, 0, _HEAD)
    if head.startswith(b"\x7fELF"):
        interpreter = _of_elf(path, node, head, within, where)
    elif head.startswith(b"#!"):
        interpreter = _of_script(path, head, where)
    else:
        raise BuildError(
            f"{where}: {printable(path)}: neither a program (ELF) nor a script that begins with #!",
            hint=_A_SCRIPT,
        )
    if interpreter is None or depth == _MAX_DEPTH:
        return
    shown = f"{where}: {printable(path)}: interpreter {printable(interpreter)}"
    name = within.tree.resolve(interpreter, within.workdir)
    if name is not None and within.unseen(name):
        return
    found = None if name is None else within.tree.nodes.get(name)
    if found is None:
        raise BuildError(
            f"{shown} not found in the image",
            hint="install it in the Dockerfile"
            if head.startswith(b"#!")
            else "link the program statically, or use a base with the C library it was built for",
        )
    if not _executable(found):
        raise BuildError(f"{shown} is not executable", hint="RUN chmod +x it")
    _check_file(interpreter, found, within, where, depth=depth + 1)


def _of_elf(path: str, node: Node, head: bytes, within: Surroundings, where: str) -> str | None:
    """Return the path of an ELF program's interpreter, None when it needs none."""
    if len(head) < _ELF_HEADER.size:
        raise BuildError(
            f"{where}: {printable(path)}: an ELF program that is cut off", hint="build it anew"
        )
    word, order = head[4], head[5]
    machine = int.from_bytes(head[18:20], "little" if order == _LITTLE else "big")
    built = _MACHINES.get(machine, f"machine {machine}")
    if machine == 62 and word != _ELF64:
        built = "x32"
    wanted = within.arch
    if built != wanted:
        raise BuildError(
            f"{where}: {printable(path)}: built for {built}, the image's platform is {wanted}",
            hint=f"build it for linux/{DEBIAN_ARCH[wanted]}, or take the files of that platform",
        )
    _, _, _, _, start, _, _, _, size, count = _ELF_HEADER.unpack_from(head)
    if size != _PROGRAM_HEADER.size:
        return None
    tree = within.tree
    table = tree.data(node, start, size * count)
    for kind, _, offset, _, _, length, _, _ in _PROGRAM_HEADER.iter_unpack(
        table[: len(table) // size * size]
    ):
        if kind == _PT_INTERP:
            text = tree.data(node, offset, min(length, _MAX_INTERPRETER))
            return text.split(b"\0")[0].decode("utf-8", "surrogateescape")
    return None


def _of_script(path: str, head: bytes, where: str) -> str:
    """Return the interpreter in a script's first line, as the kernel reads it."""
    line = head[2:].split(b"\n")[0]
    words = line.replace(b"\t", b" ").split(b"\0")[0].split(b" ")
    word = next(filter(None, words), b"")
    if word.endswith(b"\r"):
        raise BuildError(
            f"{where}: {printable(path)}: a carriage return ends its first line, "
            f"so that its interpreter would be {word.decode('utf-8', 'replace')!r}",
            hint="save it with Unix line ends (LF)",
        )
    if not word:
        raise BuildError(
            f"{where}: {printable(path)}: names no interpreter behind #!", hint=_A_SCRIPT
        )
    return word.decode("utf-8", "surrogateescape")
