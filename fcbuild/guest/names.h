/* The machine's name, and the files of /etc that names are looked up in. */
#ifndef FCBUILD_NAMES_H
#define FCBUILD_NAMES_H

#include "config.h"

#include <stddef.h>

/*
 * Set the host name, and write /etc/hostname, /etc/hosts and /etc/resolv.conf as far as the image has
 * none or the config asks for another. What cannot be written is a line on the console.
 *
 * Returns 0, or -1 with the reason in `error`.
 */
int names_set(const struct config *config, char *error, size_t error_size);

#endif
