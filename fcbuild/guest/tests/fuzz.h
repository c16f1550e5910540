/*
 * What the fuzz targets share. A target is libFuzzer's function: it gives hostile bytes to one parser
 * and checks what the parser hands on; the sanitizers see every byte that is read or written out of
 * bounds. Without libFuzzer, fuzz_standalone.c brings a main().
 */
#ifndef FCBUILD_FUZZ_H
#define FCBUILD_FUZZ_H

#include "network_config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A promise of the parser's header that has to hold. */
static inline void check(bool holds)
{
	if (!holds)
		abort();
}

/* A copy of exactly this size and `room` more, so that a sanitizer sees one byte too many. */
static inline char *copy_of(const void *data, size_t size, size_t room)
{
	char *text = malloc(size + room > 0 ? size + room : 1);
	if (text == NULL)
		exit(1);
	if (size > 0)
		memcpy(text, data, size);
	return text;
}

/* The same with a NUL behind it. */
static inline char *string_of(const void *data, size_t size)
{
	char *text = copy_of(data, size, 1);
	text[size] = '\0';
	return text;
}

/* The bytes that a list of strings takes in a document, at least. */
static inline size_t total_length(char *const *list, size_t count)
{
	size_t total = 0;
	for (size_t i = 0; i < count; i++)
		total += strlen(list[i]) + 1;
	return total;
}

/* Nothing of a network may add a line or a field to a file of /etc. */
static inline void check_network(const struct network_config *network)
{
	check(network->addressc <= NETWORK_LIST_MAX && network->gatewayc <= NETWORK_LIST_MAX &&
	      network->dnsc <= NETWORK_LIST_MAX && network->searchc <= NETWORK_LIST_MAX &&
	      network->hostc <= NETWORK_HOSTS_MAX && network->mtu <= 65535);
	for (size_t i = 0; i < network->addressc; i++)
		check(network->addresses[i].prefix <= 8 * network->addresses[i].size);
	for (size_t i = 0; i < network->dnsc; i++)
		check(strpbrk(network->dns[i], " \t\n") == NULL);
	for (size_t i = 0; i < network->searchc; i++)
		check(strpbrk(network->search[i], " \t\n") == NULL);
	for (size_t i = 0; i < network->hostc; i++)
		check(strpbrk(network->hosts[i], "\t\n#") == NULL);
}

#endif
