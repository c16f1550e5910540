"""boot.sh: a shell script that boots an image in Firecracker with plain calls of curl.

It starts Firecracker, tells it over its API socket what `doit boot` would, and waits for its end.
The guest's console, and its program's output with it, comes out of the script. Where the files are
is in shell variables, so the same calls serve a directory that travels and a store that stays.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fcbuild import microvm
from fcbuild.kernel_command_line import FIRECRACKER
from fcbuild.series import X86_64
from fcbuild.spec import ImageSpec
from fcbuild.vmm.config import MicroVm, for_image

NAME = "boot.sh"
HERE = "$here"  # in a path of a file: the script's own directory

# Around a shell variable's name in a value: a character that no value has.
_MARK = "\ue000"

_CALL = 'curl -sS --fail-with-body -m 30 --unix-socket "$run/api.sock"'

_HEAD = """\
#!/bin/sh
# Boots {image} in Firecracker, with nothing but curl on its API socket. Made by fcbuild.
#
# Needs Firecracker (on PATH, or named by FIRECRACKER), curl, and KVM. With TAP=NAME the guest has
# eth0, whose other end is that TAP device. Sockets, and copies of the drives that the guest writes
# to, are in a directory that goes with the VM.{stop}
set -eu
"""

_STOP = """
#
# To stop it: curl --unix-socket DIRECTORY/api.sock -X PUT http://localhost/actions \\
#     -d '{"action_type": "SendCtrlAltDel"}'
# A kernel without a keyboard (CONFIG_KEYBOARD_ATKBD), as profile micro, does not hear that."""

_START = """\
for file in "$@"; do
    [ -r "$file" ] || { echo "boot.sh: $file is not there" >&2; exit 1; }
done
run=$(mktemp -d "${TMPDIR:-/tmp}/fcbuild-XXXXXX")
vmm=
# Between its fork and its start a child may lose any other signal.
trap '[ -z "$vmm" ] || kill -9 "$vmm" 2>/dev/null || :; rm -rf "$run"' EXIT
trap 'exit 130' INT TERM HUP
case "$*$run${TAP:-}" in
    *[\\"\\\\]*) echo "boot.sh: a name with a quote or a backslash cannot be told" >&2; exit 1 ;;
esac
echo "boot.sh: sockets and drives are in $run" >&2
"""

_COPY = """\
cp --sparse=always "${name}" "$run/{name}.ext4"
chmod 600 "$run/{name}.ext4"
"""

_FIRECRACKER = """\
"${FIRECRACKER:-firecracker}" --api-sock "$run/api.sock" --level Error &
vmm=$!
tries=0
until curl -sS -m 30 --unix-socket "$run/api.sock" http://localhost/version >/dev/null 2>&1; do
    kill -0 "$vmm" 2>/dev/null || { echo "boot.sh: Firecracker did not start" >&2; exit 1; }
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || { echo "boot.sh: Firecracker does not answer" >&2; exit 1; }
    sleep 0.05
done

"""

_END = """\

wait "$vmm"
"""


def render(spec: ImageSpec, files: Mapping[str, Path | str]) -> str:
    """Return the script. files: where `kernel`, `rootfs` and, for an image that has one, `overlay`
    are: paths, or text for the shell, in which HERE is the script's own directory. Raises VmmError
    for a command line that does not fit."""
    own = [
        name
        for name in files
        if name == "overlay" or (name == "rootfs" and not (spec.readonly or spec.overlay))
    ]
    vm = microvm.described(
        spec,
        kernel=_place("kernel", own),
        rootfs=_place("rootfs", own),
        overlay=_place("overlay", own) if "overlay" in files else None,
    )
    return "".join(
        (
            _HEAD.format(image=spec.name, stop=_STOP if spec.arch == X86_64 else ""),
            *_assignments(files),
            _START,
            *(_COPY.replace("{name}", name) for name in own),
            _FIRECRACKER,
            *_calls(spec, vm),
            _END,
        )
    )


def _place(name: str, own: Collection[str]) -> Path:
    """Return a path that the shell will put in. own: the files that the guest gets copies of."""
    return Path(f"{_MARK}run{_MARK}/{name}.ext4" if name in own else f"{_MARK}{name}{_MARK}")


def _assignments(files: Mapping[str, Path | str]) -> Iterator[str]:
    if any(isinstance(path, str) for path in files.values()):
        yield 'here=$(cd "$(dirname "$0")" && pwd)\n'
    for name, path in files.items():
        yield f"{name}={path if isinstance(path, str) else shlex.quote(str(path))}\n"
    yield " ".join(["set --", *(f'"${name}"' for name in files)]) + "\n\n"


def _calls(spec: ImageSpec, vm: MicroVm) -> Iterator[str]:
    configure = partial(
        for_image, vsock=Path(f"{_MARK}run{_MARK}/v.sock"), platform=FIRECRACKER[spec.arch]
    )
    calls = dict(configure(vm).calls())
    for path, body in calls.items():
        yield _call(path, body)
    wired = replace(vm, tap=f"{_MARK}TAP{_MARK}", metadata={} if spec.network.mmds else None)
    yield 'if [ -n "${TAP:-}" ]; then\n'
    for path, body in configure(wired).calls():
        if path not in calls:
            yield _call(path, body, indent="    ")
    yield "fi\n"
    yield _call("/actions", {"action_type": "InstanceStart"})


def _call(path: str, body: Mapping[str, Any], indent: str = "") -> str:
    return (
        f"{indent}{_CALL} -X PUT http://localhost{path} \\\n"
        f"{indent}    -d {_word(json.dumps(body, ensure_ascii=False))}\n"
    )


def _word(text: str) -> str:
    """Return text as one word of the shell's, variables put in."""
    parts = text.split(_MARK)
    return "".join(
        f'"${part}"' if number % 2 else shlex.quote(part) for number, part in enumerate(parts)
    )
