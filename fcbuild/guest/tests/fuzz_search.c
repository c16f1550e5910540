/* The lookup of a program's name: the input is an environment, a NUL, and the name. */
#include "fuzz.h"
#include "search.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *input = string_of(data, size);
	char *env[] = {input, NULL};
	const char *name = strlen(input) < size ? input + strlen(input) + 1 : "program";
	const char *path = search_path(env);
	check(strlen(path) > 0);

	const size_t room = 64, most = strlen(path) + 1;
	char *candidate = copy_of("", 0, room);
	size_t count = 0;
	while (search_next(&path, name, candidate, room)) {
		check(++count <= most);
		check(memchr(candidate, '\0', room) != NULL);
		size_t length = strlen(candidate);
		check(length >= strlen(name) && strcmp(candidate + length - strlen(name), name) == 0);
	}
	check(path == NULL);
	free(candidate);
	free(input);
	return 0;
}
