"""A clock that is ahead, for what runs in containers.

Linux has no namespace for the wall clock (time_namespaces(7) are about the monotonic ones), so a
library takes the place of the C library's clocks in every program that is loaded with it. It needs
no C library to link with, and so goes with any.
"""

from __future__ import annotations

from pathlib import Path

from fcbuild.build.engine import Docker

AHEAD_S = 400 * 86400

_TIMEOUT_S = 60.0
_PLACE = "/clock"
_SOURCE = f"""
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
long syscall(long, ...);
int clock_gettime(clockid_t id, struct timespec *now) {{
    long status = syscall(SYS_clock_gettime, id, now);
    if (!status && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += {AHEAD_S};
    return (int)status;
}}
int timespec_get(struct timespec *now, int base) {{
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, now) ? base : 0;
}}
time_t time(time_t *at) {{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return at ? *at = now.tv_sec : now.tv_sec;
}}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec, at->tv_usec = now.tv_nsec / 1000;
    return 0;
}}
"""


def ahead(toolchain: str, directory: Path) -> Path:
    """Compile the library, in a new directory, with the toolchain image; return its path.

    Raises CommandFailed.
    """
    directory.mkdir(mode=0o700)
    source, library = directory / "clock.c", directory / "clock.so"
    log_path = directory / "log"
    source.write_text(_SOURCE, encoding="utf-8")
    with log_path.open("wb") as log:
        Docker().run(
            toolchain,
            [
                *("gcc", "-shared", "-fPIC", "-nostdlib", "-Wall", "-Wextra", "-Werror"),
                *("-o", f"{_PLACE}/{library.name}", f"{_PLACE}/{source.name}"),
            ],
            what="compiling a clock that is ahead",
            mounts={directory: f"{_PLACE}:rw"},
            log=log,
            log_path=log_path,
            timeout_s=_TIMEOUT_S,
        )
    return library
