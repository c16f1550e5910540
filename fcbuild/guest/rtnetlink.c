/* Messages of rtnetlink(7): what the kernel is asked to do with an interface. Pure. */
#include "rtnetlink.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

/*
 * From <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_link.h> and <linux/if_addr.h>, which a libc
 * need not bring. The unit tests compare them with the kernel's own.
 */
struct header { /* struct nlmsghdr */
	uint32_t length;
	uint16_t type, flags;
	uint32_t sequence, port;
};

struct link { /* struct ifinfomsg */
	uint8_t family, padding;
	uint16_t type;
	uint32_t index, flags, change;
};

struct link_address { /* struct ifaddrmsg */
	uint8_t family, prefix, flags, scope;
	uint32_t index;
};

struct route { /* struct rtmsg */
	uint8_t family, to_prefix, from_prefix, tos;
	uint8_t table, protocol, scope, type;
	uint32_t flags;
};

struct attribute { /* struct rtattr */
	uint16_t length, type;
};

enum {
	TYPE_ERROR = 2, /* NLMSG_ERROR */
	TYPE_NEW_LINK = 16,
	TYPE_GET_LINK = 18,
	TYPE_NEW_ADDRESS = 20,
	TYPE_NEW_ROUTE = 24,

	FLAG_REQUEST = 1,
	FLAG_ACK = 4,
	FLAG_EXCLUSIVE = 0x200,
	FLAG_CREATE = 0x400,

	LINK_NAME = 3, /* IFLA_IFNAME */
	LINK_MTU = 4,

	ADDRESS_ADDRESS = 1, /* IFA_ADDRESS */
	ADDRESS_LOCAL = 2,
	ADDRESS_NO_DAD = 2, /* IFA_F_NODAD */

	ROUTE_TO = 1, /* RTA_DST */
	ROUTE_INTERFACE = 4,
	ROUTE_GATEWAY = 5,
	TABLE_MAIN = 254,
	PROTOCOL_BOOT = 3,
	SCOPE_UNIVERSE = 0,
	SCOPE_LINK = 253,
	ROUTE_UNICAST = 1,
};

static size_t aligned(size_t length)
{
	return (length + 3) & ~(size_t)3;
}

/* Add bytes to the message, and zeros up to the next multiple of 4; what has no room makes it invalid. */
static void put(struct rtnetlink_request *request, const void *bytes, size_t size)
{
	size_t end = request->length + aligned(size);
	if (request->length == 0 || end > sizeof request->bytes) {
		request->length = 0;
		return;
	}
	memcpy(request->bytes + request->length, bytes, size);
	request->length = end;
	/* The header starts with the whole message's length. */
	memcpy(request->bytes, &(uint32_t){(uint32_t)end}, sizeof(uint32_t));
}

static void start(struct rtnetlink_request *request, uint32_t sequence, uint16_t type, uint16_t flags,
		  const void *body, size_t size)
{
	const struct header header = {
		.type = type,
		.flags = (uint16_t)(FLAG_REQUEST | FLAG_ACK | flags),
		.sequence = sequence,
	};
	memset(request, 0, sizeof *request);
	memcpy(request->bytes, &header, sizeof header);
	request->length = sizeof header;
	put(request, body, size);
}

static void attribute(struct rtnetlink_request *request, uint16_t type, const void *bytes, size_t size)
{
	struct attribute head = {.length = (uint16_t)(sizeof head + size), .type = type};
	put(request, &head, sizeof head);
	put(request, bytes, size);
}

static void number(struct rtnetlink_request *request, uint16_t type, uint32_t value)
{
	attribute(request, type, &value, sizeof value);
}

void rtnetlink_find(struct rtnetlink_request *request, uint32_t sequence, const char *name)
{
	const struct link link = {.family = AF_UNSPEC};
	start(request, sequence, TYPE_GET_LINK, 0, &link, sizeof link);
	attribute(request, LINK_NAME, name, strlen(name) + 1);
}

void rtnetlink_mtu(struct rtnetlink_request *request, uint32_t sequence, uint32_t index, uint32_t mtu)
{
	const struct link link = {.family = AF_UNSPEC, .index = index};
	start(request, sequence, TYPE_NEW_LINK, 0, &link, sizeof link);
	number(request, LINK_MTU, mtu);
}

void rtnetlink_up(struct rtnetlink_request *request, uint32_t sequence, uint32_t index)
{
	const struct link link = {.family = AF_UNSPEC, .index = index, .flags = IFF_UP, .change = IFF_UP};
	start(request, sequence, TYPE_NEW_LINK, 0, &link, sizeof link);
}

void rtnetlink_address(struct rtnetlink_request *request, uint32_t sequence, uint32_t index,
		       const struct address *address)
{
	const struct link_address body = {
		.family = (uint8_t)address->family,
		.prefix = address->prefix,
		.flags = address->family == AF_INET6 ? ADDRESS_NO_DAD : 0,
		.scope = SCOPE_UNIVERSE,
		.index = index,
	};
	start(request, sequence, TYPE_NEW_ADDRESS, FLAG_CREATE | FLAG_EXCLUSIVE, &body, sizeof body);
	attribute(request, ADDRESS_LOCAL, address->bytes, address->size);
	attribute(request, ADDRESS_ADDRESS, address->bytes, address->size);
}

static void start_route(struct rtnetlink_request *request, uint32_t sequence, uint32_t index,
			const struct address *address, uint8_t to_prefix, uint8_t scope)
{
	const struct route route = {
		.family = (uint8_t)address->family,
		.to_prefix = to_prefix,
		.table = TABLE_MAIN,
		.protocol = PROTOCOL_BOOT,
		.scope = scope,
		.type = ROUTE_UNICAST,
	};
	start(request, sequence, TYPE_NEW_ROUTE, FLAG_CREATE | FLAG_EXCLUSIVE, &route, sizeof route);
	number(request, ROUTE_INTERFACE, index);
}

void rtnetlink_default_route(struct rtnetlink_request *request, uint32_t sequence, uint32_t index,
			     const struct address *gateway)
{
	start_route(request, sequence, index, gateway, 0, SCOPE_UNIVERSE);
	attribute(request, ROUTE_GATEWAY, gateway->bytes, gateway->size);
}

void rtnetlink_host_route(struct rtnetlink_request *request, uint32_t sequence, uint32_t index,
			  const struct address *host)
{
	start_route(request, sequence, index, host, host->prefix, SCOPE_LINK);
	attribute(request, ROUTE_TO, host->bytes, host->size);
}

struct rtnetlink_answer rtnetlink_answer(const void *bytes, size_t length, uint32_t sequence)
{
	struct rtnetlink_answer answer = {.error = 0};
	struct header header;
	for (size_t at = 0; length - at >= sizeof header; at += aligned(header.length)) {
		memcpy(&header, (const char *)bytes + at, sizeof header);
		const char *body = (const char *)bytes + at + sizeof header;
		size_t room = length - at - sizeof header;
		/* An interface's description may be cut by our buffer; its start is enough. */
		if (header.sequence == sequence && header.type == TYPE_NEW_LINK && room >= sizeof(struct link)) {
			struct link link;
			memcpy(&link, body, sizeof link);
			answer.index = link.index;
		}
		if (header.sequence == sequence && header.type == TYPE_ERROR && room >= sizeof(int32_t)) {
			int32_t error;
			memcpy(&error, body, sizeof error);
			answer.acknowledged = true;
			answer.error = error > 0 || error < -4095 ? EPROTO : -error;
		}
		if (header.length < sizeof header || aligned(header.length) > length - at)
			break;
	}
	return answer;
}
