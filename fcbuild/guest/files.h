/* The files that an instance brings. */
#ifndef FCBUILD_FILES_H
#define FCBUILD_FILES_H

#include "instance.h"

#include <stddef.h>

/*
 * Create or replace every file of `instance`, missing parent directories included.
 * Returns 0, or -1 with the reason in `error`.
 */
int files_write(const struct instance *instance, char *error, size_t error_size);

#endif
