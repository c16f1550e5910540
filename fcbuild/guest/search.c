/* Where a program's name is looked for. Pure. */
#include "search.h"

#include <stdio.h>
#include <string.h>

static const char DEFAULT_PATH[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const char *search_environment(char *const *env, const char *name)
{
	size_t length = strlen(name);
	for (; *env != NULL; env++)
		if (strncmp(*env, name, length) == 0 && (*env)[length] == '=')
			return *env + length + 1;
	return NULL;
}

const char *search_path(char *const *env)
{
	const char *path = search_environment(env, "PATH");
	return path != NULL && *path != '\0' ? path : DEFAULT_PATH;
}

bool search_next(const char **path, const char *name, char *candidate, size_t size)
{
	if (*path != NULL && (*name == '\0' || strchr(name, '/') != NULL)) {
		*path = NULL;
		return (size_t)snprintf(candidate, size, "%s", name) < size;
	}
	while (*path != NULL) {
		const char *directory = *path;
		size_t length = strcspn(directory, ":");
		*path = directory[length] == ':' ? directory + length + 1 : NULL;
		if (length > size) /* also keeps the precision below within an int */
			continue;
		int used = snprintf(candidate, size, "%.*s%s%s", (int)length, directory, length > 0 ? "/" : "", name);
		if (used >= 0 && (size_t)used < size)
			return true;
	}
	return false;
}
