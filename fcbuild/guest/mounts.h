/* The file systems a Linux program expects to find. */
#ifndef FCBUILD_MOUNTS_H
#define FCBUILD_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Mount what BOOT_CONTRACT.md section 3 lists and make the links of /dev. A mount point that has a
 * file system already keeps it. Where the guest kernel lacks a file system that a program can live
 * without, a line on the console says so. `minimal` is /proc, /sys and /dev: an image's own init
 * mounts the rest itself.
 *
 * Returns 0, or -1 with the reason in `error` when /proc, /sys or /dev is missing.
 */
int mounts_make(bool minimal, char *error, size_t error_size);

#endif
