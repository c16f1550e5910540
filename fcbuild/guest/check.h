/* The image's HEALTHCHECK: it is run, watched and reported here; health.h has the rules. */
#ifndef FCBUILD_CHECK_H
#define FCBUILD_CHECK_H

#include "config.h"

#include <poll.h>
#include <stdbool.h>
#include <sys/types.h>

enum { CHECK_SLOTS = 1 };

/* The program runs from now on: report "starting" and plan the first check, if the image has one. */
void check_open(const struct config *config);

/* Set the poll entry. Returns the milliseconds until check_step has to run anyway, or -1. */
int check_watch(struct pollfd slots[CHECK_SLOTS]);

/* Keep what the running check has written, and start or kill one when that is due. */
void check_step(const struct pollfd slots[CHECK_SLOTS]);

/* Note that the process `pid` has ended with this wait status. Returns whether it was the check. */
bool check_ended(pid_t pid, int status);

/* Kill the check that runs, and start none any more. */
void check_stop(void);

#endif
