/* Bytes on their way from one descriptor to another, neither of which may block us. */
#ifndef FCBUILD_FLOW_H
#define FCBUILD_FLOW_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What one write to a socket may hold. Above 32 KiB the kernel (6.12.y, virtio_vsock) sends a packet
 * in several buffers, of which Firecracker before 1.14 repeats some when the host is slow to read:
 * its pull request 5485.
 */
enum { FLOW_BYTES = 16384 };

/*
 * The descriptors belong to the caller. Nothing is read while bytes wait to be written, so a slow
 * reader slows the writer down.
 */
struct flow {
	int from; /* -1 when nothing comes any more */
	int to;
	size_t start, end; /* what waits in `bytes` */
	uint64_t written;
	char bytes[FLOW_BYTES];
};

enum flow_state {
	FLOW_MOVED,  /* something was read or written, or `from` came to its end */
	FLOW_IDLE,   /* nothing can be done now */
	FLOW_BROKEN, /* `to` takes nothing any more; errno says why */
};

/* Whether bytes wait to be written. */
bool flow_waiting(const struct flow *flow);

/* Set two poll entries to what the flow waits for. */
void flow_watch(const struct flow *flow, struct pollfd slots[2]);

/* Read once when empty, then write once. At its end, or when it fails, `from` becomes -1. */
enum flow_state flow_step(struct flow *flow);

#endif
