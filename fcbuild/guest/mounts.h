/* The file systems a Linux program expects to find (BOOT_CONTRACT.md, section 3). */
#ifndef FCBUILD_MOUNTS_H
#define FCBUILD_MOUNTS_H

#include <stddef.h>

/*
 * Mount /proc, /sys and /dev, and make the links of /dev. A mount point that has a file system
 * already keeps it. Returns 0, or -1 with the reason in `error`.
 */
int mounts_kernel(char *error, size_t error_size);

/* Mount /dev before its time, for a link that is a device. What goes wrong shows when that is opened. */
void mounts_devices(void);

/*
 * Mount what a program expects beside these. Where the guest kernel lacks a file system a line on the
 * console says so.
 */
void mounts_program(void);

#endif
