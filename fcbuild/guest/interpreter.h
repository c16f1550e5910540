/* What a file needs to run: another program, a certain machine. */
#ifndef FCBUILD_INTERPRETER_H
#define FCBUILD_INTERPRETER_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Find the interpreter that the first `length` bytes of a file ask for: the path of a "#!" line, or
 * the dynamic loader of an ELF file. Returns whether there is one, and its path in `path`.
 */
bool interpreter_of(const char *head, size_t length, char *path, size_t path_size);

/*
 * The machine that an ELF file is built for, as uname(2) has it, or NULL when the first `length`
 * bytes are not those of one. A machine without a name here is given as its number, in `text`.
 */
const char *machine_of(const char *head, size_t length, char *text, size_t text_size);

/* The machine that this is. */
const char *machine_here(void);

#endif
