/* When a health check runs, and what its results mean: the container engine's rules. */
#ifndef FCBUILD_HEALTH_H
#define FCBUILD_HEALTH_H

#include "config.h"

#include <stdbool.h>
#include <stdint.h>

enum health_status { HEALTH_STARTING, HEALTH_HEALTHY, HEALTH_UNHEALTHY };

enum health_step { HEALTH_WAIT, HEALTH_START, HEALTH_KILL };

/* The code of a check that took too long; no process has it. */
enum { HEALTH_TIMED_OUT = -1 };

/* Points in time are nanoseconds of one clock. */
struct health {
	struct health_times times;
	enum health_status status;
	unsigned failing; /* failures in a row, of those that count */
	uint64_t due;     /* when health_step has something to say; UINT64_MAX: never */
	/* The rules' own. */
	uint64_t start_period_end;
	bool running;  /* a check's result is waited for */
	bool forgiven; /* the check was started in the start period */
	bool stopped;
};

/* The program has started: the status is "starting", and the first check is due in a while. */
void health_begin(struct health *health, const struct health_times *times, uint64_t now);

/*
 * What has to be done now. After HEALTH_START a check runs until health_ended. HEALTH_KILL comes at
 * most once for it, when its time is up; that is a failure, which has been counted already.
 */
enum health_step health_step(struct health *health, uint64_t now);

/*
 * The check has ended with `code`; the time until the next one starts here. The result of one that
 * was to be killed, or that ends after health_stop, does not count.
 */
void health_ended(struct health *health, int code, uint64_t now);

/* No further check, and no result, from now on. */
void health_stop(struct health *health);

/* The status as the `health` event has it. */
const char *health_word(enum health_status status);

#endif
