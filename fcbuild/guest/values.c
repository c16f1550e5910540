/* What the values of the boot config and the instance's values are made of. Pure. */
#include "values.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

enum {
	HOSTNAME_MAX = 63, /* of BOOT_CONTRACT.md; the kernel itself takes 64 */
	LABEL_MAX = 63,    /* RFC 1035, section 2.3.4, as is the next one without its dots' lengths */
	DOMAIN_MAX = 253,
	HOST_LINE_MAX = 1024,
};

#define LETTERS \
	"abcdefghijklmnopqrstuvwxyz" \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ" \
	"0123456789-_"

int decimal_parse(const char *text, size_t length, uint64_t least, uint64_t most, uint64_t *number)
{
	if (length < 1 || length > 19 || (text[0] == '0' && length > 1))
		return -1;
	uint64_t value = 0;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		value = value * 10 + (uint64_t)(text[i] - '0');
	}
	if (value < least || value > most)
		return -1;
	*number = value;
	return 0;
}

/* Parse the first `length` bytes of `text` as an address. */
static int parse_address(const char *text, size_t length, struct address *address)
{
	char copy[INET6_ADDRSTRLEN];
	if (length >= sizeof copy)
		return -1;
	memcpy(copy, text, length);
	copy[length] = '\0';
	bool six = strchr(copy, ':') != NULL;
	*address = (struct address){.text = text, .family = six ? AF_INET6 : AF_INET, .size = six ? 16 : 4};
	address->prefix = (uint8_t)(8 * address->size);
	return inet_pton(address->family, copy, address->bytes) == 1 ? 0 : -1;
}

int address_parse(const char *text, struct address *address)
{
	return parse_address(text, strlen(text), address);
}

int address_parse_prefix(const char *text, struct address *address)
{
	size_t length = strcspn(text, "/");
	uint64_t prefix = 0;
	if (text[length] != '/' || parse_address(text, length, address) != 0)
		return -1;
	const char *digits = text + length + 1;
	if (decimal_parse(digits, strlen(digits), 0, 8u * address->size, &prefix) != 0)
		return -1;
	address->prefix = (uint8_t)prefix;
	return 0;
}

const char *hostname_problem(const char *text, size_t length)
{
	if (length >= 1 && length <= HOSTNAME_MAX && strspn(text, LETTERS ".") == length)
		return NULL;
	return "is not 1 to 63 of a-z A-Z 0-9 . - _";
}

/* Whether the first `length` bytes of `text` are labels with a dot between each two. */
static bool is_domain(const char *text, size_t length)
{
	if (length > DOMAIN_MAX)
		return false;
	for (size_t at = 0;; at++) {
		size_t label = strspn(text + at, LETTERS);
		if (label < 1 || label > LABEL_MAX)
			return false;
		at += label;
		if (at >= length)
			return at == length;
		if (text[at] != '.')
			return false;
	}
}

const char *domain_problem(const char *text)
{
	return is_domain(text, strlen(text)) ? NULL : "is not a domain";
}

const char *host_problem(const char *text)
{
	static const char problem[] = "is not ADDRESS NAME [NAME..]";
	struct address address;
	size_t length = strcspn(text, " ");
	if (text[length] == '\0' || strlen(text) > HOST_LINE_MAX || parse_address(text, length, &address) != 0)
		return problem;
	while (text[length] == ' ') {
		text += length + 1;
		length = strcspn(text, " ");
		if (!is_domain(text, length))
			return problem;
	}
	return NULL;
}

const char *environment_problem(const char *text)
{
	const char *equals = strchr(text, '=');
	return equals != NULL && equals != text ? NULL : "is not NAME=value";
}
