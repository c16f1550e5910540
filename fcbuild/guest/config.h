/* The boot config: what the builder wrote into /.fcbuild/boot (BOOT_CONTRACT.md, section 2). */
#ifndef FCBUILD_CONFIG_H
#define FCBUILD_CONFIG_H

#include "network_config.h"
#include "records.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	CONFIG_BYTES_MAX = 262144,
	CONFIG_RECORDS_MAX = RECORDS_MAX,
	CONFIG_HOSTNAME_MAX = 63,
};

enum root_mode {
	ROOT_WRITABLE,
	ROOT_READ_ONLY,
	ROOT_OVERLAY,
};

/* When the health check runs, and what its failures mean. */
struct health_times {
	uint32_t interval_ms, timeout_ms, start_period_ms, start_interval_ms;
	unsigned retries;
};

struct config {
	char *argv[CONFIG_RECORDS_MAX + 1]; /* NULL-terminated, at least one */
	char *env[CONFIG_RECORDS_MAX + 2];  /* NULL-terminated, with room for one more */
	gid_t groups[CONFIG_RECORDS_MAX];
	size_t argc, envc, groupc;
	const char *workdir;
	const char *hostname;
	uid_t uid;
	gid_t gid;
	int stop_signal;
	uint32_t stop_grace_ms;
	bool handover; /* argv is the image's own init */
	enum root_mode root;
	const char *writable[CONFIG_RECORDS_MAX]; /* directories, on a read-only root */
	size_t writablec;
	char *health[CONFIG_RECORDS_MAX + 1]; /* the check's argv, NULL-terminated */
	size_t healthc;                       /* 0: there is no check */
	struct health_times health_times;
	struct network_config network;
	bool instance_hostname; /* `hostname` is not the image's */
	/* The environment's HOSTNAME, once the instance has another one than the image (instance.c). */
	char hostname_env[sizeof "HOSTNAME=" + CONFIG_HOSTNAME_MAX];
};

/*
 * Read the document of `length` bytes at `text` into `config`, which is all zero before, and whose
 * strings point into `text` afterwards: the byte behind each value becomes its NUL.
 *
 * Returns 0, or -1 with one line in `error` that says which record is wrong and why.
 */
int config_parse(char *text, size_t length, struct config *config, char *error, size_t error_size);

#endif
