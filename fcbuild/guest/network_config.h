/* The network that the image asks for, and the instance in its place (BOOT_CONTRACT.md, section 2). */
#ifndef FCBUILD_NETWORK_CONFIG_H
#define FCBUILD_NETWORK_CONFIG_H

#include "values.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NETWORK_LIST_MAX = 16, NETWORK_HOSTS_MAX = 256 };

struct network_config {
	struct address addresses[NETWORK_LIST_MAX]; /* of eth0 */
	struct address gateways[NETWORK_LIST_MAX];
	const char *dns[NETWORK_LIST_MAX];
	const char *search[NETWORK_LIST_MAX];
	const char *hosts[NETWORK_HOSTS_MAX]; /* lines of /etc/hosts */
	size_t addressc, gatewayc, dnsc, searchc, hostc;
	uint32_t mtu; /* of eth0; 0: as it is */
	bool mmds;
};

enum network_key {
	NETWORK_ADDRESS,
	NETWORK_GATEWAY,
	NETWORK_DNS,
	NETWORK_SEARCH,
	NETWORK_HOST,
	NETWORK_MTU,
	NETWORK_MMDS,
	NETWORK_KEYS
};

/* The network key of that name, or NETWORK_KEYS when it is none. */
enum network_key network_key(const char *name, size_t length);

/*
 * Add a record's value, which has to stay where it is. Returns NULL, or what is wrong with it, ready
 * to follow its key.
 */
const char *network_config_add(struct network_config *network, enum network_key key, const char *value);

/* Whether `network` holds anything that needs the interface eth0. */
bool network_config_needs_interface(const struct network_config *network);

/* For each key that `over` has a record of, put its records in the place of those in `network`. */
void network_config_merge(struct network_config *network, const struct network_config *over);

#endif
