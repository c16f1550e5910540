#include "mux.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HEADER_BYTES 9

/* Data waits in Firecracker's sockets, not here: nothing is read from them while this much waits
 * for the link, so that one bulk stream adds little delay to the others. */
#define OUT_BUSY 131072
/* The rest is for answers (ACCEPTED, WINDOW, ...): at 13 bytes each far more than 256 streams can
 * owe to a host that keeps the rules. A host that does not is disconnected. */
#define OUT_BYTES 1048576
#define IN_BYTES 65536

enum state {
	FREE,
	WAITING, /* the host opened it, Firecracker does not listen yet */
	OPENING, /* we opened it, the host has not answered */
	JOINED,
};

struct stream {
	enum state state;
	uint32_t id;
	uint32_t index; /* into connect, while WAITING */
	int fd;
	uint32_t credit;  /* bytes that the host still takes */
	uint32_t taken;   /* bytes delivered for which no credit was given back yet */
	uint8_t *in;      /* ring: bytes for fd */
	size_t in_head, in_length;
	bool knocking;    /* the socket is there, but not listening */
	bool sent_eof, got_eof, got_close;
	bool deaf;        /* fd takes nothing more */
};

static struct stream streams[MAX_STREAMS];
static const struct paths *targets;
static bool reached[CONFIG_PATHS]; /* Firecracker has accepted there before */

static int link_fd = -1;
static uint8_t out[OUT_BYTES];
static size_t out_head, out_length;
static uint8_t in[IN_BYTES];
static size_t in_length;
static bool broken; /* the host does not keep the rules */
static bool draining;
static uint32_t last_theirs = (uint32_t)-1; /* theirs are odd: the next is above it */
static uint32_t last_ours;

static void put32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get32(const uint8_t *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Where the payload of the next frame goes; NULL when the link cannot take it. */
static uint8_t *reserve(size_t payload)
{
	if (link_fd < 0)
		return NULL;
	if (out_head + out_length + HEADER_BYTES + payload > OUT_BYTES) {
		memmove(out, out + out_head, out_length);
		out_head = 0;
	}
	if (out_length + HEADER_BYTES + payload > OUT_BYTES) {
		broken = true;
		return NULL;
	}
	return out + out_head + out_length + HEADER_BYTES;
}

static void commit(enum frame type, uint32_t id, size_t payload)
{
	uint8_t *at = out + out_head + out_length;
	at[0] = (uint8_t)type;
	put32(at + 1, id);
	put32(at + 5, (uint32_t)payload);
	out_length += HEADER_BYTES + payload;
}

static void send_frame(enum frame type, uint32_t id, const void *payload, size_t length)
{
	uint8_t *at = reserve(length);
	if (at == NULL)
		return;
	if (length > 0)
		memcpy(at, payload, length);
	commit(type, id, length);
}

static void send_u32(enum frame type, uint32_t id, uint32_t value)
{
	uint8_t bytes[4];
	put32(bytes, value);
	send_frame(type, id, bytes, sizeof bytes);
}

bool mux_has_room(void)
{
	return out_length < OUT_BUSY;
}

static struct stream *find(uint32_t id)
{
	for (size_t i = 0; i < MAX_STREAMS; i++)
		if (streams[i].state != FREE && streams[i].id == id)
			return &streams[i];
	return NULL;
}

static struct stream *take(void)
{
	for (size_t i = 0; i < MAX_STREAMS; i++) {
		struct stream *s = &streams[i];
		if (s->state != FREE)
			continue;
		uint8_t *ring = s->in != NULL ? s->in : malloc(WINDOW_BYTES);
		if (ring == NULL)
			return NULL;
		*s = (struct stream){.in = ring, .fd = -1, .credit = WINDOW_BYTES};
		return s;
	}
	return NULL;
}

static void drop(struct stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->state = FREE;
}

static void drop_with(struct stream *s, enum frame type)
{
	send_frame(type, s->id, NULL, 0);
	drop(s);
}

static bool may_read(const struct stream *s)
{
	return s->state == JOINED && !s->sent_eof && !s->got_close && (s->credit > 0 || draining) &&
	       mux_has_room();
}

/* Both directions are done, or the host takes no more and what it sent is delivered. */
static bool is_done(const struct stream *s)
{
	return s->in_length == 0 && (s->got_close || (s->got_eof && s->sent_eof));
}

static void write_to_socket(struct stream *s)
{
	while (s->in_length > 0 && !s->deaf) {
		size_t run = WINDOW_BYTES - s->in_head;
		if (run > s->in_length)
			run = s->in_length;
		ssize_t n = send(s->fd, s->in + s->in_head, run, MSG_NOSIGNAL);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN)
				return;
			s->deaf = true;
			break;
		}
		s->in_head = (s->in_head + (size_t)n) % WINDOW_BYTES;
		s->in_length -= (size_t)n;
		s->taken += (uint32_t)n;
	}
	if (s->deaf) {
		/* Nobody will read it; credit keeps the sender going until it learns that. */
		s->taken += (uint32_t)s->in_length;
		s->in_length = 0;
	}
	if (s->taken >= WINDOW_BYTES / 2 && !s->got_eof && !s->got_close) {
		send_u32(WINDOW, s->id, s->taken);
		s->taken = 0;
	}
	if (s->in_length == 0 && s->got_eof && !s->deaf)
		shutdown(s->fd, SHUT_WR);
}

static void read_from_socket(struct stream *s, bool hung_up)
{
	size_t most = draining || s->credit > FRAME_BYTES ? FRAME_BYTES : s->credit;
	uint8_t *at = reserve(most);
	if (at == NULL)
		return;
	ssize_t n = recv(s->fd, at, most, 0);
	if (n > 0) {
		commit(DATA, s->id, (size_t)n);
		s->credit -= (size_t)n > s->credit ? s->credit : (uint32_t)n;
	} else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	} else if (n < 0 || hung_up) {
		drop_with(s, CLOSE);
	} else {
		send_frame(END_OF_FILE, s->id, NULL, 0);
		s->sent_eof = true;
	}
}

static void run_stream(struct stream *s, short events)
{
	bool hung_up = (events & (POLLHUP | POLLERR)) != 0;
	if ((events & POLLOUT) != 0 || (hung_up && s->in_length > 0))
		write_to_socket(s);
	if (may_read(s)) {
		if ((events & POLLIN) != 0 || hung_up)
			read_from_socket(s, hung_up);
	} else if (s->sent_eof && hung_up) {
		drop_with(s, CLOSE);
	}
	if (s->state == JOINED && is_done(s))
		drop(s);
}

/* Connect a WAITING stream to Firecracker. */
static void knock(struct stream *s)
{
	const char *path = targets->path[s->index];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (draining || strlen(path) >= sizeof address.sun_path) {
		drop_with(s, REFUSED);
		return;
	}
	strcpy(address.sun_path, path);
	if (path[0] == '@')
		address.sun_path[0] = '\0'; /* unix(7): an abstract name, as long as there is room */
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		drop_with(s, REFUSED);
		return;
	}
	s->knocking = false;
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
		reached[s->index] = true;
		s->fd = fd;
		s->state = JOINED;
		send_frame(ACCEPTED, s->id, NULL, 0);
		return;
	}
	int error = errno;
	close(fd);
	if (error == ENOENT && !reached[s->index])
		return; /* inotify tells when it appears */
	if (error == EAGAIN || (error == ECONNREFUSED && !reached[s->index]))
		s->knocking = true; /* its backlog is full, or it is between bind and listen */
	else
		drop_with(s, REFUSED);
}

void mux_retry(void)
{
	for (size_t i = 0; i < MAX_STREAMS; i++)
		if (streams[i].state == WAITING)
			knock(&streams[i]);
}

bool mux_asking(void)
{
	for (size_t i = 0; i < MAX_STREAMS; i++)
		if (streams[i].state == OPENING)
			return true;
	return false;
}

bool mux_knocking(void)
{
	for (size_t i = 0; i < MAX_STREAMS; i++)
		if (streams[i].state == WAITING && streams[i].knocking)
			return true;
	return false;
}

void mux_open(int fd, uint32_t index)
{
	struct stream *s = take();
	if (s == NULL) {
		close(fd);
		return;
	}
	last_ours += 2;
	s->state = OPENING;
	s->id = last_ours;
	s->fd = fd;
	send_u32(OPEN, s->id, index);
}

static bool open_theirs(uint32_t id, uint32_t index)
{
	/* Odd, and above the last (the first may be 1: last_theirs wraps around). */
	if (id % 2 != 1 || id < last_theirs + 2 || index >= targets->count)
		return false;
	last_theirs = id;
	struct stream *s = take();
	if (s == NULL) {
		send_frame(REFUSED, id, NULL, 0);
		return true;
	}
	s->state = WAITING;
	s->id = id;
	s->index = index;
	knock(s);
	return true;
}

/* Whether the id was ever given; a frame for a stream that is gone is no violation. */
static bool was_opened(uint32_t id)
{
	if (id == 0)
		return false;
	return id % 2 == 1 ? last_theirs != (uint32_t)-1 && id <= last_theirs : id <= last_ours;
}

static bool on_data(struct stream *s, const uint8_t *payload, size_t length)
{
	if (length == 0 || s->state != JOINED || s->got_eof || s->got_close ||
	    s->taken + s->in_length + length > WINDOW_BYTES)
		return false;
	size_t tail = (s->in_head + s->in_length) % WINDOW_BYTES;
	size_t run = WINDOW_BYTES - tail < length ? WINDOW_BYTES - tail : length;
	memcpy(s->in + tail, payload, run);
	memcpy(s->in, payload + run, length - run);
	s->in_length += length;
	write_to_socket(s);
	return true;
}

/* Act on one frame; false when it breaks the rules. */
static bool on_frame(uint8_t type, uint32_t id, const uint8_t *payload, size_t length)
{
	if (type == OPEN)
		return length == 4 && open_theirs(id, get32(payload));
	struct stream *s = find(id);
	if (s == NULL)
		return type >= ACCEPTED && type <= CLOSE && was_opened(id);
	switch (type) {
	case DATA:
		if (!on_data(s, payload, length))
			return false;
		break;
	case WINDOW: {
		uint32_t more = length == 4 ? get32(payload) : 0;
		if (more == 0 || more > WINDOW_BYTES - s->credit)
			return draining && length == 4; /* credit was overdrawn on purpose */
		s->credit += more;
		break;
	}
	case ACCEPTED:
		if (length != 0 || s->state != OPENING)
			return false;
		s->state = JOINED;
		break;
	case REFUSED:
		if (length != 0 || s->state != OPENING)
			return false;
		drop(s);
		return true;
	case END_OF_FILE:
		if (length != 0 || s->state != JOINED || s->got_eof)
			return false;
		s->got_eof = true;
		write_to_socket(s);
		break;
	case CLOSE:
		if (length != 0 || s->state == OPENING)
			return false;
		s->got_close = true;
		if (s->state == WAITING) {
			drop(s);
			return true;
		}
		write_to_socket(s);
		break;
	default:
		return false;
	}
	if (s->state == JOINED && is_done(s))
		drop(s);
	return true;
}

static enum link_state read_link(void)
{
	ssize_t n = read(link_fd, in + in_length, IN_BYTES - in_length);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? LINK_OPEN : LINK_ENDED;
	if (n == 0)
		return LINK_ENDED;
	in_length += (size_t)n;
	size_t at = 0;
	while (in_length - at >= HEADER_BYTES) {
		uint8_t type = in[at];
		uint32_t id = get32(in + at + 1), length = get32(in + at + 5);
		if (length > FRAME_BYTES)
			return LINK_VIOLATED;
		if (in_length - at < HEADER_BYTES + length)
			break;
		if (type == STOP)
			return id == 0 && length == 0 ? LINK_STOPPED : LINK_VIOLATED;
		if (!on_frame(type, id, in + at + HEADER_BYTES, length))
			return LINK_VIOLATED;
		at += HEADER_BYTES + length;
	}
	memmove(in, in + at, in_length - at);
	in_length -= at;
	return LINK_OPEN;
}

static enum link_state write_link(void)
{
	while (out_length > 0) {
		ssize_t n = write(link_fd, out + out_head, out_length);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? LINK_OPEN : LINK_ENDED;
		out_head += (size_t)n;
		out_length -= (size_t)n;
	}
	out_head = 0;
	return LINK_OPEN;
}

void mux_start(int link, const struct paths *connect)
{
	link_fd = link;
	targets = connect;
	send_u32(READY, 0, LINK_VERSION);
	/* Blocking: a virtio-serial port takes nothing until its host end is known to be there. */
	write_link();
	fcntl(link, F_SETFL, fcntl(link, F_GETFL) | O_NONBLOCK);
}

size_t mux_poll(struct pollfd *polls)
{
	polls[0] = (struct pollfd){.fd = link_fd, .events = POLLIN};
	if (out_length > 0)
		polls[0].events |= POLLOUT;
	for (size_t i = 0; i < MAX_STREAMS; i++) {
		const struct stream *s = &streams[i];
		struct pollfd *p = &polls[1 + i];
		*p = (struct pollfd){.fd = -1};
		if (s->state != JOINED)
			continue;
		if (may_read(s))
			p->events |= POLLIN;
		if (s->in_length > 0)
			p->events |= POLLOUT;
		/* A hang-up is always reported: look only when it can be acted on. */
		if (p->events != 0 || s->sent_eof)
			p->fd = s->fd;
	}
	return MUX_POLLS;
}

enum link_state mux_run(const struct pollfd *polls, size_t count)
{
	enum link_state state = LINK_OPEN;
	/* Streams first: a frame that is read below may free a stream and give its place away. */
	for (size_t i = 1; i < count; i++)
		if (polls[i].fd >= 0 && polls[i].revents != 0 && streams[i - 1].state == JOINED)
			run_stream(&streams[i - 1], polls[i].revents);
	if ((polls[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
		state = read_link();
	if (state == LINK_OPEN && out_length > 0)
		state = write_link();
	return broken ? LINK_VIOLATED : state;
}

void mux_log(uint32_t index, const void *data, size_t length)
{
	send_frame(LOG, index, data, length);
}

void mux_drain(void)
{
	draining = true;
	send_frame(DRAIN, 0, NULL, 0);
	mux_retry();
}

bool mux_drained(void)
{
	for (size_t i = 0; i < MAX_STREAMS; i++)
		if (streams[i].state != FREE)
			return false;
	return true;
}

void mux_close(void)
{
	for (size_t i = 0; i < MAX_STREAMS; i++)
		if (streams[i].state != FREE)
			drop(&streams[i]);
	close(link_fd);
	link_fd = -1;
}

void mux_exit(int32_t status)
{
	send_u32(EXIT, 0, (uint32_t)status);
}

void mux_trouble(const char *text)
{
	if (link_fd < 0)
		return;
	size_t length = strlen(text);
	send_frame(TROUBLE, 0, text, length < FRAME_BYTES ? length : FRAME_BYTES);
	/* Blocking, but not for ever: the host may be what the trouble is about. */
	struct pollfd poll_link = {.fd = link_fd, .events = POLLOUT};
	while (out_length > 0 && poll(&poll_link, 1, 1000) == 1 &&
	       (poll_link.revents & POLLOUT) != 0 && write_link() == LINK_OPEN)
		;
}
