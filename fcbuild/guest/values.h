/* What the values of the boot config and the instance's values are made of. */
#ifndef FCBUILD_VALUES_H
#define FCBUILD_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An IPv4 or IPv6 address, with the length of its network's prefix where it has one. */
struct address {
	const char *text; /* as it was given, prefix included */
	int family;       /* AF_INET or AF_INET6 */
	unsigned char bytes[16];
	uint8_t size; /* of `bytes`: 4 or 16 */
	uint8_t prefix;
};

/*
 * Parse all of `text` as a decimal number without leading zeros, between `least` and `most`.
 * Returns 0, or -1 when it is anything else.
 */
int decimal_parse(const char *text, size_t length, uint64_t least, uint64_t most, uint64_t *number);

/* Parse `ADDRESS`, or `ADDRESS/PREFIX` with a prefix that the family has. Returns 0 or -1. */
int address_parse(const char *text, struct address *address);
int address_parse_prefix(const char *text, struct address *address);

/*
 * What is wrong with a value, ready to follow its key in a complaint; NULL when nothing is. Names and
 * domains go into files of /etc, so they must not be able to add a line or a field there.
 */
const char *hostname_problem(const char *text, size_t length);
const char *domain_problem(const char *text);
const char *host_problem(const char *text); /* `ADDRESS NAME [NAME..]` */
const char *environment_problem(const char *text);

#endif
