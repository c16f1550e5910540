/* The loopback interface, the machine's name, and the files that resolvers read. */
#ifndef FCBUILD_NETWORK_H
#define FCBUILD_NETWORK_H

#include <stddef.h>

/*
 * Bring `lo` up, set the host name, and write /etc/hostname, /etc/hosts and /etc/resolv.conf where
 * the image has none or an empty one. A read-only root just goes without the files, a kernel
 * without IPv4 without `lo`.
 *
 * Returns 0, or -1 with the reason in `error`.
 */
int network_up(const char *hostname, char *error, size_t error_size);

#endif
