/* Bytes on their way from one descriptor to another, neither of which may block us. */
#include "flow.h"

#include <errno.h>
#include <unistd.h>

bool flow_waiting(const struct flow *flow)
{
	return flow->start < flow->end;
}

void flow_watch(const struct flow *flow, struct pollfd slots[2])
{
	bool waiting = flow_waiting(flow);
	slots[0] = (struct pollfd){.fd = waiting ? -1 : flow->from, .events = POLLIN};
	slots[1] = (struct pollfd){.fd = waiting ? flow->to : -1, .events = POLLOUT};
}

static bool passing(void)
{
	return errno == EAGAIN || errno == EINTR;
}

enum flow_state flow_step(struct flow *flow)
{
	enum flow_state state = FLOW_IDLE;
	if (!flow_waiting(flow) && flow->from >= 0) {
		flow->start = flow->end = 0;
		ssize_t got = read(flow->from, flow->bytes, sizeof flow->bytes);
		if (got > 0) {
			flow->end = (size_t)got;
			state = FLOW_MOVED;
		} else if (got == 0 || !passing()) {
			flow->from = -1;
			state = FLOW_MOVED;
		}
	}
	if (flow_waiting(flow)) {
		ssize_t put = write(flow->to, flow->bytes + flow->start, flow->end - flow->start);
		if (put < 0 && !passing())
			return FLOW_BROKEN;
		if (put > 0) {
			flow->start += (size_t)put;
			flow->written += (uint64_t)put;
			state = FLOW_MOVED;
		}
	}
	return state;
}
