/* TCP forward: the host reaches the guest's ports without a network. */
#ifndef FCBUILD_FORWARD_H
#define FCBUILD_FORWARD_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Take one connection from the listener and serve it in a child process, so that no connection can
 * slow PID 1 down. Above 64 at once the answer is `error EAGAIN`.
 */
void forward_accept(int listener);

/* Note that the process `pid` has ended. Returns whether it was a forward. */
bool forward_ended(pid_t pid);

/* The name of an errno that a forward can answer with, "EIO" for one that is not known here. */
const char *forward_errno_name(int number);

#endif
