/* Many sockets over the one byte stream to the host; LINK.md has the frames and their rules. */
#ifndef FCBUILD_KVMHOST_MUX_H
#define FCBUILD_KVMHOST_MUX_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"

#define LINK_VERSION 1
#define FRAME_BYTES 16384
#define WINDOW_BYTES 262144
#define MAX_STREAMS 256

enum frame {
	READY = 1,
	OPEN,
	ACCEPTED,
	REFUSED,
	DATA,
	WINDOW,
	END_OF_FILE,
	CLOSE,
	LOG,
	DRAIN,
	EXIT,
	STOP,
	TROUBLE,
};

/* What mux_run_link found. */
enum link_state { LINK_OPEN, LINK_STOPPED, LINK_ENDED, LINK_VIOLATED };

/* The descriptors that mux_poll adds: the link and every stream. */
#define MUX_POLLS (1 + MAX_STREAMS)

/* Take the link (still blocking) and the sockets that Firecracker listens on ("@" stands for the NUL
 * of an abstract name). Sends READY. */
void mux_start(int link, const struct paths *connect);

/* Fill polls with what to wait for; returns how many. */
size_t mux_poll(struct pollfd *polls);

/* Act on what poll() found in them. */
enum link_state mux_run(const struct pollfd *polls, size_t count);

/* Carry a connection that Firecracker made to listen[index]; closes fd when there is no room. */
void mux_open(int fd, uint32_t index);

/* Try again to reach the sockets that Firecracker did not listen on yet. */
void mux_retry(void);

/* Whether a socket is there but not listening yet, so that only trying again can tell. */
bool mux_knocking(void);

/* Whether the host has yet to answer for a connection of mux_open's. */
bool mux_asking(void);

/* Whether more may be read from sockets and pipes now; the link is busy otherwise. */
bool mux_has_room(void);

void mux_log(uint32_t index, const void *data, size_t length);

/* Firecracker has ended: send what is left in its sockets and end every stream. */
void mux_drain(void);

/* Whether draining has come to its end. */
bool mux_drained(void);

/* The link has ended, and with it every stream. */
void mux_close(void);

void mux_exit(int32_t status);

/* Say why L1 ends, if the link still takes it. */
void mux_trouble(const char *text);

#endif
