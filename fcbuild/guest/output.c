/* The program's standard output and error on their way to the host, or else to the console. */
#include "output.h"

#include "clock.h"
#include "console.h"
#include "flow.h"

#include <stdbool.h>
#include <string.h>

enum { DRAIN_IDLE_MS = 1000, DRAIN_MS = 10000 };

static struct {
	struct flow flow;
	bool linked;   /* the flow goes to the host */
	uint64_t sent; /* what the link took before it broke */
} streams[OUTPUT_STREAMS];

void output_open(int stdout_socket, int stderr_socket)
{
	const int sockets[OUTPUT_STREAMS] = {stdout_socket, stderr_socket};
	for (int i = 0; i < OUTPUT_STREAMS; i++) {
		streams[i].linked = sockets[i] >= 0;
		streams[i].flow.from = -1;
		streams[i].flow.to = streams[i].linked ? sockets[i] : console_fd();
	}
}

void output_take(enum output_stream stream, int from)
{
	streams[stream].flow.from = from;
}

void output_say(enum output_stream stream, const char *text)
{
	struct flow *flow = &streams[stream].flow;
	if (flow_waiting(flow))
		return;
	flow->start = 0;
	flow->end = strnlen(text, sizeof flow->bytes);
	memcpy(flow->bytes, text, flow->end);
}

/* Returns whether anything moved. */
static bool step(int i)
{
	struct flow *flow = &streams[i].flow;
	enum flow_state state = flow_step(flow);
	if (state != FLOW_BROKEN)
		return state == FLOW_MOVED;
	if (streams[i].linked) {
		/* The host has gone: from here on it is as if it had never listened. */
		streams[i].linked = false;
		streams[i].sent = flow->written;
		flow->to = console_fd();
		step(i);
	} else {
		flow->start = flow->end; /* no console either: the program must not hang on that */
	}
	return true;
}

void output_watch(struct pollfd slots[OUTPUT_SLOTS])
{
	for (int i = 0; i < OUTPUT_STREAMS; i++)
		flow_watch(&streams[i].flow, slots + 2 * i);
}

void output_step(const struct pollfd slots[OUTPUT_SLOTS])
{
	for (int i = 0; i < OUTPUT_STREAMS; i++)
		if (slots[2 * i].revents != 0 || slots[2 * i + 1].revents != 0)
			step(i);
}

void output_drain(void)
{
	uint64_t end = clock_deadline(DRAIN_MS);
	for (;;) {
		bool moved = false, waiting = false;
		for (int i = 0; i < OUTPUT_STREAMS; i++) {
			moved |= step(i);
			waiting |= flow_waiting(&streams[i].flow);
		}
		if (!moved && !waiting)
			return;
		if (!moved) {
			struct pollfd slots[OUTPUT_SLOTS];
			output_watch(slots);
			/* An open pipe that is empty has nothing to say any more: only writing is waited for. */
			for (int i = 0; i < OUTPUT_STREAMS; i++)
				slots[2 * i].fd = -1;
			int left = clock_left(end);
			if (poll(slots, OUTPUT_SLOTS, left < DRAIN_IDLE_MS ? left : DRAIN_IDLE_MS) == 0)
				break;
		}
		if (clock_left(end) == 0)
			break;
	}
	console_say("the host did not take all of the output");
}

uint64_t output_sent(enum output_stream stream)
{
	return streams[stream].linked ? streams[stream].flow.written : streams[stream].sent;
}
