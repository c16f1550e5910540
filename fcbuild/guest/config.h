/* The boot config: what the builder wrote into /.fcbuild/boot (BOOT_CONTRACT.md, section 2). */
#ifndef FCBUILD_CONFIG_H
#define FCBUILD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	CONFIG_BYTES_MAX = 262144,
	CONFIG_RECORDS_MAX = 4096, /* the end record is not counted */
};

/* HEALTHCHECK's numbers. */
struct health_times {
	uint32_t interval_ms, timeout_ms, start_period_ms, start_interval_ms;
	unsigned retries;
};

struct config {
	char *argv[CONFIG_RECORDS_MAX + 1]; /* NULL-terminated, at least one */
	char *env[CONFIG_RECORDS_MAX + 1];  /* NULL-terminated */
	gid_t groups[CONFIG_RECORDS_MAX];
	size_t argc, envc, groupc;
	const char *workdir;
	const char *hostname;
	uid_t uid;
	gid_t gid;
	int stop_signal;
	uint32_t stop_grace_ms;
	bool handover;
	char *health[CONFIG_RECORDS_MAX + 1];
	size_t healthc;
	struct health_times health_times;
};

/*
 * Read the document of `length` bytes at `text` into `config`, whose strings point into `text`
 * afterwards: the byte behind each value becomes its NUL.
 *
 * Returns 0, or -1 with one line in `error` that says which record is wrong and why.
 */
int config_parse(char *text, size_t length, struct config *config, char *error, size_t error_size);

/*
 * Parse all of `text` as a decimal number without leading zeros, between `least` and `most`.
 * Returns 0, or -1 when it is anything else.
 */
int decimal_parse(const char *text, size_t length, uint64_t least, uint64_t most, uint64_t *number);

#endif
