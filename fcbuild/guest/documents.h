/* Where this machine's configuration comes from: the image, the config drive, the command line. */
#ifndef FCBUILD_DOCUMENTS_H
#define FCBUILD_DOCUMENTS_H

#include "config.h"
#include "instance.h"

#include <stddef.h>

/* Everything that was read; large, and its strings point into it. */
struct documents {
	struct config config; /* the instance's values are in it */
	struct instance drive, line;
	struct command_line command_line;
	char config_text[CONFIG_BYTES_MAX + 1];
	char drive_text[INSTANCE_BYTES_MAX + 1];
	char line_text[COMMAND_LINE_MAX + 1];
};

/* Read the image's boot config. Returns 0, or -1 with the reason in `error`; the same below. */
int documents_read_image(struct documents *documents, char *error, size_t error_size);

/* Read the instance's values, for which /proc and /dev are needed, and put them over the image's. */
int documents_read_instance(struct documents *documents, char *error, size_t error_size);

#endif
