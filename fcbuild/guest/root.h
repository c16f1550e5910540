/* The root file system, as the image wants it: written to, read-only, or below an overlay. */
#ifndef FCBUILD_ROOT_H
#define FCBUILD_ROOT_H

#include "config.h"

#include <stddef.h>

/*
 * Make the root that BOOT_CONTRACT.md section 3.1 describes. An overlay's upper layer is on the ext4
 * of the device `overlay_drive`, or in RAM when that is NULL. /proc, /sys and /dev are mounted
 * before and move along.
 *
 * Returns 0, or -1 with the reason in `error`.
 */
int root_make(const struct config *config, const char *overlay_drive, char *error, size_t error_size);

/* Make the root read-only, and an overlay's drive, too, which leaves them as clean as an unmount would. */
void root_close(void);

#endif
