/*
 * A virtio-serial port in place of vsock, for a VMM that has none (BOOT_CONTRACT.md, section 4.1). What
 * carries the sockets over it is the emulated KVM host's, fcbuild/kvmhost/mux.c.
 */
#ifndef FCBUILD_PORT_H
#define FCBUILD_PORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

/* The order in which the host knows them: of those that it listens on, and of those of the guest. */
enum port_host { PORT_EVENTS, PORT_STDOUT, PORT_STDERR };
enum port_guest { PORT_CONTROL, PORT_FORWARD };

#ifdef LINK_PORT

/* Open the port that PID 1's environment names. Returns whether it names one: vsock is not used then. */
bool port_open(uint64_t deadline);

/* Listen for the host; -1 when that cannot be. Call before port_start. */
int port_listen(enum port_guest which);

/* Connect to the host, which may refuse by closing the connection; -1 when there is no port. */
int port_connect(enum port_host which);

/* Wait until the host has answered for all connections. */
void port_await(uint64_t deadline);

/* Carry the sockets from now on. */
void port_start(void);

/* Whether the host is who connected. */
bool port_is_host(int connection);

/* fork(2); afterwards the child carries the sockets, and the parent has to execute something else. */
pid_t port_hand_over(void);

#else /* machines that always have vsock */

static inline bool port_open(uint64_t deadline)
{
	(void)deadline;
	return false;
}

static inline int port_listen(enum port_guest which)
{
	(void)which;
	return -1;
}

static inline void port_await(uint64_t deadline)
{
	(void)deadline;
}

static inline void port_start(void)
{
}

static inline int port_connect(enum port_host which)
{
	(void)which;
	return -1;
}

static inline bool port_is_host(int connection)
{
	(void)connection;
	return false;
}

static inline pid_t port_hand_over(void)
{
	return fork();
}

#endif

#endif
