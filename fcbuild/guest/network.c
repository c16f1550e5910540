/* The machine's network interfaces. */
#include "network.h"

#include "console.h"
#include "rtnetlink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define INTERFACE "eth0"

/* The kernel's first interface, always. */
#define LOOPBACK_INDEX 1

/* Of IMDS, which Firecracker's metadata service imitates. */
#define MMDS "169.254.169.254"

/* <linux/netlink.h> */
#define NETLINK_ROUTE 0

/* An answer of the kernel: an interface's description is about 1,500 bytes. */
enum { ANSWER_BYTES = 4096 };

static int netlink = -1;
static uint32_t sequence;

/*
 * Send a request and read the kernel's answer, which is there once the request is sent. Returns 0 or
 * an errno; `*index` becomes that of the interface in the answer, if there is one.
 */
static int ask(const struct rtnetlink_request *request, uint32_t *index)
{
	if (request->length == 0)
		return EMSGSIZE;
	if (send(netlink, request->bytes, request->length, 0) < 0)
		return errno;
	for (;;) {
		char bytes[ANSWER_BYTES];
		ssize_t got = recv(netlink, bytes, sizeof bytes, MSG_DONTWAIT);
		if (got < 0)
			return errno;
		struct rtnetlink_answer answer = rtnetlink_answer(bytes, (size_t)got, sequence);
		if (answer.index != 0 && index != NULL)
			*index = answer.index;
		if (answer.acknowledged)
			return answer.error;
	}
}

/* Returns 0, or -1 and the reason in `error`. */
__attribute__((format(printf, 4, 5))) static int result(int why, char *error, size_t error_size, const char *format,
							...)
{
	if (why == 0)
		return 0;
	va_list arguments;
	va_start(arguments, format);
	int used = vsnprintf(error, error_size, format, arguments);
	va_end(arguments);
	if (used >= 0 && (size_t)used < error_size)
		snprintf(error + used, error_size - (size_t)used, ": %s", strerror(why));
	return -1;
}

/* Find eth0. Its index is 0 when this machine has none. */
static int find_interface(uint32_t *index, char *error, size_t error_size)
{
	struct rtnetlink_request request;
	*index = 0;
	rtnetlink_find(&request, ++sequence, INTERFACE);
	int why = ask(&request, index);
	return result(why == ENODEV ? 0 : why, error, error_size, INTERFACE);
}

static int interface_up(const struct network_config *network, uint32_t index, char *error, size_t error_size)
{
	struct rtnetlink_request request;
	if (network->mtu != 0) {
		rtnetlink_mtu(&request, ++sequence, index, network->mtu);
		if (result(ask(&request, NULL), error, error_size, INTERFACE ": mtu %u", network->mtu) != 0)
			return -1;
	}
	for (size_t i = 0; i < network->addressc; i++) {
		rtnetlink_address(&request, ++sequence, index, &network->addresses[i]);
		if (result(ask(&request, NULL), error, error_size, INTERFACE ": address %s",
			   network->addresses[i].text) != 0)
			return -1;
	}
	rtnetlink_up(&request, ++sequence, index);
	if (result(ask(&request, NULL), error, error_size, INTERFACE) != 0)
		return -1;
	for (size_t i = 0; i < network->gatewayc; i++) {
		rtnetlink_default_route(&request, ++sequence, index, &network->gateways[i]);
		if (result(ask(&request, NULL), error, error_size, INTERFACE ": default route via %s",
			   network->gateways[i].text) != 0)
			return -1;
	}
	if (network->mmds) {
		struct address mmds;
		if (address_parse(MMDS, &mmds) != 0)
			return -1;
		rtnetlink_host_route(&request, ++sequence, index, &mmds);
		if (result(ask(&request, NULL), error, error_size, INTERFACE ": route to " MMDS) != 0)
			return -1;
	}
	return 0;
}

static int all_up(const struct network_config *network, char *error, size_t error_size)
{
	struct rtnetlink_request request;
	uint32_t index;
	rtnetlink_up(&request, ++sequence, LOOPBACK_INDEX);
	if (result(ask(&request, NULL), error, error_size, "lo") != 0)
		return -1;
	if (!network_config_needs_interface(network))
		return 0;
	if (find_interface(&index, error, error_size) != 0)
		return -1;
	if (index != 0)
		return interface_up(network, index, error, error_size);
	console_say("no " INTERFACE ": its addresses and routes are left out");
	return 0;
}

/* Let every user listen on any port and ping, as an engine does; the kernel lets root only. */
static void allow_users(void)
{
	static const struct {
		const char *file, *value;
	} settings[] = {
		{"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
		{"/proc/sys/net/ipv4/ping_group_range", "0 2147483647"},
	};
	for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
		int fd = open(settings[i].file, O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			continue; /* a kernel without IPv4 */
		if (write(fd, settings[i].value, strlen(settings[i].value)) < 0)
			console_say("%s: %s", settings[i].file, strerror(errno));
		close(fd);
	}
}

int network_up(const struct network_config *network, char *error, size_t error_size)
{
	netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (netlink < 0) {
		console_say("no network: %s", strerror(errno));
		return 0;
	}
	int all = all_up(network, error, error_size);
	close(netlink);
	allow_users();
	return all;
}
