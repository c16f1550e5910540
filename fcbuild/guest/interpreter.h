/* Which other program a file needs to run. */
#ifndef FCBUILD_INTERPRETER_H
#define FCBUILD_INTERPRETER_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Find the interpreter that the first `length` bytes of a file ask for: the path of a "#!" line, or
 * the dynamic loader of an ELF file. Returns whether there is one, and its path in `path`.
 */
bool interpreter_of(const char *head, size_t length, char *path, size_t path_size);

#endif
