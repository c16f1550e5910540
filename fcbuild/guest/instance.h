/* The instance's own values, which are not in the image (BOOT_CONTRACT.md, section 2.1). */
#ifndef FCBUILD_INSTANCE_H
#define FCBUILD_INSTANCE_H

#include "config.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	INSTANCE_BYTES_MAX = 1048576, /* of the config drive's document */
	INSTANCE_FILES_MAX = 256,
	COMMAND_LINE_MAX = 4096, /* Linux on x86 has 2048 */
};

/* A file to be written before the program starts. */
struct instance_file {
	const char *path;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	const char *data; /* may hold NUL */
	size_t length;
};

/* What one source, the config drive or the command line, says. */
struct instance {
	const char *hostname; /* NULL: the image's */
	char *env[CONFIG_RECORDS_MAX];
	char *args[CONFIG_RECORDS_MAX];
	struct instance_file files[INSTANCE_FILES_MAX];
	size_t envc, argc, filec;
	struct network_config network;
};

/* What else the command line says. */
struct command_line {
	const char *config_drive;  /* /dev/NAME, or NULL when there is none */
	const char *overlay_drive; /* the same */
};

/*
 * Read the config drive's document, or the words `fcbuild.KEY=VALUE` of a kernel command line.
 * `instance` and `command_line` are all zero before; their strings point into `text` afterwards,
 * which changes. `text` of a command line needs room for one NUL behind its `length` bytes.
 *
 * Returns 0, or -1 with one line in `error` that says what is wrong.
 */
int instance_parse(char *text, size_t length, struct instance *instance, char *error, size_t error_size);
int command_line_parse(char *text, size_t length, struct command_line *command_line, struct instance *instance,
		       char *error, size_t error_size);

/*
 * Put the instance's values over those of `config`, the source that counts least first. `instance`
 * and its text have to stay where they are. Returns 0, or -1 with one line in `error`.
 */
int instance_merge(struct config *config, const struct instance *instance, char *error, size_t error_size);

#endif
