/* Where a program's name is looked for. */
#ifndef FCBUILD_SEARCH_H
#define FCBUILD_SEARCH_H

#include <stdbool.h>
#include <stddef.h>

/* The value of `name` in an environment; the first one counts, as for getenv(3). NULL: not there. */
const char *search_environment(char *const *env, const char *name);

/* The PATH of `env`, or the default one when it names none or is empty. */
const char *search_path(char *const *env);

/*
 * Make the next file to try for `name` from `*path`, and move `*path` behind it. Start with the
 * value of search_path; a `name` with a slash is the only candidate then. An empty element is the
 * working directory. Returns false when there are no more; a candidate that is too long for `size`
 * bytes is left out.
 */
bool search_next(const char **path, const char *name, char *candidate, size_t size);

#endif
