/* The control port: one line in, one line back. */
#ifndef FCBUILD_CONTROL_H
#define FCBUILD_CONTROL_H

#include <poll.h>

/* The listener, and connections whose line has not arrived; one more waits in the backlog. */
enum { CONTROL_CONNECTIONS = 8, CONTROL_SLOTS = 1 + CONTROL_CONNECTIONS };

/* Do what was asked: 0 means "stop". Returns 0, or an errno for the answer. */
typedef int control_handler(int signal);

/* Serve the listener `listener` (-1: there is none). */
void control_open(int listener, control_handler *handler);

/* Set the poll entries. Returns the milliseconds until control_step has to run anyway, or -1. */
int control_watch(struct pollfd slots[CONTROL_SLOTS]);

/* Read, answer and close what the poll entries allow, and close what has been silent too long. */
void control_step(const struct pollfd slots[CONTROL_SLOTS]);

#endif
