/* The sockets between guest and host (BOOT_CONTRACT.md, section 4). */
#ifndef FCBUILD_LINK_H
#define FCBUILD_LINK_H

#include <sys/types.h>

enum link_port {
	LINK_EVENTS = 10240,
	LINK_STDOUT = 10241,
	LINK_STDERR = 10242,
	LINK_CONTROL = 10250,
	LINK_FORWARD = 10251,
};

/* All are non-blocking and close-on-exec; -1 where the host does not listen or we could not. */
struct link {
	int events, output, errors;
	int control, forward;
};

/* Connect to the host's ports and listen on the guest's. Takes at most one second. */
void link_open(struct link *link);

/*
 * Take one connection from a listener. Returns its descriptor, or -1 when there is none or it does
 * not come from the host: a process inside the guest has no business on these ports.
 */
int link_accept(int listener);

/* fork(2): the child goes on with the link, the parent executes something else. */
pid_t link_hand_over(void);

#endif
