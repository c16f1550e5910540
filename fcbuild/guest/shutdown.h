/* The end of the machine. */
#ifndef FCBUILD_SHUTDOWN_H
#define FCBUILD_SHUTDOWN_H

#include "link.h"

/* Kill every process but this one and reap them all; what is stuck in the kernel after a second is left. */
void shutdown_processes(void);

/* Write everything to the disks and make the root read-only. */
void shutdown_disks(void);

/*
 * Send what is queued, shut the sending side of the link, and wait until the host has closed it: one
 * second in all.
 */
void shutdown_link(const struct link *link);

/* Do that and restart the machine, which is how a Firecracker VM ends. */
_Noreturn void shutdown_machine(const struct link *link);

#endif
