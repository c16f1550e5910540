/* Messages of rtnetlink(7): what the kernel is asked to do with an interface. */
#ifndef FCBUILD_RTNETLINK_H
#define FCBUILD_RTNETLINK_H

#include "values.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RTNETLINK_BYTES_MAX = 128 };

/* A request, ready to be sent. */
struct rtnetlink_request {
	_Alignas(4) unsigned char bytes[RTNETLINK_BYTES_MAX];
	size_t length;
};

/* What the kernel says to a request. */
struct rtnetlink_answer {
	bool acknowledged; /* it is done with the request, or has refused it */
	int error;         /* 0, or an errno */
	uint32_t index;    /* of the interface that it describes, or 0 */
};

/* Ask for the interface `name`. */
void rtnetlink_find(struct rtnetlink_request *request, uint32_t sequence, const char *name);

/* Set the MTU of an interface; bring one up. */
void rtnetlink_mtu(struct rtnetlink_request *request, uint32_t sequence, uint32_t index, uint32_t mtu);
void rtnetlink_up(struct rtnetlink_request *request, uint32_t sequence, uint32_t index);

/* Give an interface an address, an IPv6 one without duplicate address detection. */
void rtnetlink_address(struct rtnetlink_request *request, uint32_t sequence, uint32_t index,
		       const struct address *address);

/* Make the default route of the gateway's family; make a route to one host on the interface's network. */
void rtnetlink_default_route(struct rtnetlink_request *request, uint32_t sequence, uint32_t index,
			     const struct address *gateway);
void rtnetlink_host_route(struct rtnetlink_request *request, uint32_t sequence, uint32_t index,
			  const struct address *host);

/* Read what came in one datagram about the request `sequence`; the rest of it is of no interest. */
struct rtnetlink_answer rtnetlink_answer(const void *bytes, size_t length, uint32_t sequence);

#endif
