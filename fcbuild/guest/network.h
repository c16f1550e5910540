/* The machine's network interfaces. */
#ifndef FCBUILD_NETWORK_H
#define FCBUILD_NETWORK_H

#include "network_config.h"

#include <stddef.h>

/*
 * Bring `lo` up, and `eth0` with all that the config has for it, and let every user listen on any
 * port and ping, as an engine does. Nothing waits for a carrier. Where
 * there is no eth0, or a kernel without a network, a line on the console says what is not there.
 *
 * Returns 0, or -1 with the reason in `error`.
 */
int network_up(const struct network_config *network, char *error, size_t error_size);

#endif
