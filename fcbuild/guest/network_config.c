/* The network that the image asks for, and the instance in its place. Pure. */
#include "network_config.h"

#include <string.h>

enum { MTU_MIN = 68, MTU_MAX = 65535 };

static const char *const names[NETWORK_KEYS] = {
	[NETWORK_ADDRESS] = "address",
	[NETWORK_GATEWAY] = "gateway",
	[NETWORK_DNS] = "dns",
	[NETWORK_SEARCH] = "search",
	[NETWORK_HOST] = "host",
	[NETWORK_MTU] = "mtu",
	[NETWORK_MMDS] = "mmds",
};

enum network_key network_key(const char *name, size_t length)
{
	int key = 0;
	while (key < NETWORK_KEYS && (strlen(names[key]) != length || memcmp(names[key], name, length) != 0))
		key++;
	return (enum network_key)key;
}

static const char *too_many(size_t count, size_t most)
{
	if (count < most)
		return NULL;
	return most == NETWORK_HOSTS_MAX ? "is there more than 256 times" : "is there more than 16 times";
}

static const char *add_text(const char **list, size_t *count, size_t most, const char *value, const char *problem)
{
	if (problem == NULL)
		problem = too_many(*count, most);
	if (problem == NULL)
		list[(*count)++] = value;
	return problem;
}

const char *network_config_add(struct network_config *network, enum network_key key, const char *value)
{
	struct address address;
	const char *problem = NULL;
	uint64_t number = 0;
	switch (key) {
	case NETWORK_ADDRESS:
		if (address_parse_prefix(value, &address) != 0)
			return "is not ADDRESS/PREFIX";
		problem = too_many(network->addressc, NETWORK_LIST_MAX);
		if (problem == NULL)
			network->addresses[network->addressc++] = address;
		return problem;
	case NETWORK_GATEWAY:
		if (address_parse(value, &address) != 0)
			return "is not an address";
		problem = too_many(network->gatewayc, NETWORK_LIST_MAX);
		if (problem == NULL)
			network->gateways[network->gatewayc++] = address;
		return problem;
	case NETWORK_DNS:
		problem = address_parse(value, &address) != 0 ? "is not an address" : NULL;
		return add_text(network->dns, &network->dnsc, NETWORK_LIST_MAX, value, problem);
	case NETWORK_SEARCH:
		return add_text(network->search, &network->searchc, NETWORK_LIST_MAX, value, domain_problem(value));
	case NETWORK_HOST:
		return add_text(network->hosts, &network->hostc, NETWORK_HOSTS_MAX, value, host_problem(value));
	case NETWORK_MTU:
		if (network->mtu != 0)
			return "is there twice";
		if (decimal_parse(value, strlen(value), MTU_MIN, MTU_MAX, &number) != 0)
			return "is not a number from 68 to 65535";
		network->mtu = (uint32_t)number;
		return NULL;
	case NETWORK_MMDS:
		if (network->mmds)
			return "is there twice";
		if (*value != '\0')
			return "is a flag and has no value";
		network->mmds = true;
		return NULL;
	case NETWORK_KEYS:
		break;
	}
	return "is no key of the network";
}

bool network_config_needs_interface(const struct network_config *network)
{
	return network->addressc > 0 || network->gatewayc > 0 || network->mtu != 0 || network->mmds;
}

void network_config_merge(struct network_config *network, const struct network_config *over)
{
	if (over->addressc > 0) {
		memcpy(network->addresses, over->addresses, sizeof network->addresses);
		network->addressc = over->addressc;
	}
	if (over->gatewayc > 0) {
		memcpy(network->gateways, over->gateways, sizeof network->gateways);
		network->gatewayc = over->gatewayc;
	}
	if (over->dnsc > 0) {
		memcpy(network->dns, over->dns, sizeof network->dns);
		network->dnsc = over->dnsc;
	}
	if (over->searchc > 0) {
		memcpy(network->search, over->search, sizeof network->search);
		network->searchc = over->searchc;
	}
	if (over->hostc > 0) {
		memcpy(network->hosts, over->hosts, sizeof network->hosts);
		network->hostc = over->hostc;
	}
	if (over->mtu != 0)
		network->mtu = over->mtu;
	network->mmds |= over->mmds;
}
