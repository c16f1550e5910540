/* The first bytes of a file of the image that the kernel would not execute. */
#include "fuzz.h"
#include "interpreter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *head = copy_of(data, size, 0);
	for (size_t room = 1; room <= 256; room *= 16) {
		char *path = copy_of("", 0, room);
		if (interpreter_of(head, size, path, room))
			check(memchr(path, '\0', room) != NULL && strlen(path) > 0 && strlen(path) <= size);
		free(path);
	}
	char text[32] = "";
	const char *machine = machine_of(head, size, text, sizeof text);
	check(machine == NULL || strlen(machine) > 0);
	free(head);
	return 0;
}
