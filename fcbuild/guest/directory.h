/* Directories of the image. */
#ifndef FCBUILD_DIRECTORY_H
#define FCBUILD_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Whether the directory has anything in it. */
bool directory_has_entries(const char *directory);

/*
 * Make the directory that the first `length` bytes of `path` name, and its parents, as far as they
 * are missing: 0755, with this owner. What goes wrong shows when it is used.
 */
void directory_make(const char *path, size_t length, uid_t uid, gid_t gid);

#endif
