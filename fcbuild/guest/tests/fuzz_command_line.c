/* The kernel command line. */
#include "fuzz_instance.h"

static void check_drive(const char *drive)
{
	check(drive == NULL || (strncmp(drive, "/dev/", 5) == 0 && strpbrk(drive + 5, "/. \n") == NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct instance instance;
	struct command_line command_line = {0};
	char error[128] = "";
	char *text = copy_of(data, size, 1);
	memset(&instance, 0, sizeof instance);
	if (command_line_parse(text, size, &command_line, &instance, error, sizeof error) == 0) {
		check_instance(&instance, size);
		check_drive(command_line.config_drive);
		check_drive(command_line.overlay_drive);
		check(instance.filec == 0);
		check_merge(&instance);
	} else {
		check(strlen(error) > 0);
	}
	free(text);
	return 0;
}
