/* The agent's config document; LINK.md has its format. */
#ifndef FCBUILD_KVMHOST_CONFIG_H
#define FCBUILD_KVMHOST_CONFIG_H

#include <stddef.h>

#define CONFIG_BYTES 262144
#define CONFIG_RECORDS 4096
#define CONFIG_PATHS 64
#define CONFIG_TAP_LENGTH 15 /* IFNAMSIZ without its NUL */

struct paths {
	char *path[CONFIG_PATHS];
	size_t count;
};

struct config {
	char *argv[CONFIG_RECORDS + 1]; /* ends with NULL, for execv */
	size_t argc;
	struct paths connect, listen, log, disk;
	const char *tap; /* or NULL */
};

/* Parse the document in place: the strings of *config point into text.
 * Returns NULL, or what is wrong. */
const char *config_parse(struct config *config, char *text, size_t length);

#endif
