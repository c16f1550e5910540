/*
 * libFuzzer's entry into the parsers of the boot config, the instance document and the kernel command
 * line: no input may make them read or write out of bounds, or hand on what the contract forbids.
 */
#include "config.h"
#include "instance.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BASE \
	"fcbuild-boot 2\nargv 1\na\nenv 3\nA=1\nenv 11\nHOSTNAME=vm\nworkdir 1\n/\nuid 1\n0\ngid 1\n0\n" \
	"hostname 2\nvm\nstop-signal 2\n15\nstop-grace-ms 5\n10000\nend 0\n\n"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config config;
static struct instance instance;
static struct command_line command_line;

/* A copy of exactly this size and `room` more, so that the sanitizer sees one byte too many. */
static char *copy_of(const uint8_t *data, size_t size, size_t room)
{
	char *text = malloc(size + room > 0 ? size + room : 1);
	if (text == NULL)
		exit(1);
	if (size > 0)
		memcpy(text, data, size);
	return text;
}

static void check(int holds)
{
	if (!holds)
		abort();
}

static size_t total_length(char *const *list, size_t count)
{
	size_t total = 0;
	for (size_t i = 0; i < count; i++)
		total += strlen(list[i]) + 1;
	return total;
}

static void check_network(const struct network_config *network)
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

static void check_config(size_t size)
{
	check(config.argv[config.argc] == NULL && config.env[config.envc] == NULL && config.health[config.healthc] == NULL);
	check(config.argc > 0 && strpbrk(config.hostname, " \t\n/") == NULL && config.workdir[0] == '/');
	check(total_length(config.argv, config.argc) + total_length(config.env, config.envc) +
		      total_length(config.health, config.healthc) + strlen(config.workdir) + strlen(config.hostname) <=
	      size);
	check((config.healthc > 0) == (config.health_times.retries > 0));
	check_network(&config.network);
}

static void check_instance(size_t size)
{
	size_t total = total_length(instance.env, instance.envc) + total_length(instance.args, instance.argc);
	for (size_t i = 0; i < instance.filec; i++) {
		const struct instance_file *file = &instance.files[i];
		check(file->path[0] == '/' && file->mode <= 07777);
		total += strlen(file->path) + file->length;
		/* Touch both ends of the content. */
		if (file->length > 0)
			check(file->data[0] + file->data[file->length - 1] < 512);
	}
	check(total <= size);
	check(instance.hostname == NULL || strpbrk(instance.hostname, " \t\n/") == NULL);
	check_network(&instance.network);
}

/* Put what was read over a config that is fine. */
static void merge(void)
{
	char base[] = BASE, error[64];
	memset(&config, 0, sizeof config);
	check(config_parse(base, strlen(base), &config, error, sizeof error) == 0);
	if (instance_merge(&config, &instance, error, sizeof error) != 0)
		return;
	check(config.argc == 1 + instance.argc && config.argv[config.argc] == NULL);
	check(config.envc >= 2 && config.envc <= 2 + instance.envc && config.env[config.envc] == NULL);
	check_network(&config.network);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char error[64] = "";
	char *text = copy_of(data, size, 0);
	memset(&config, 0, sizeof config);
	if (config_parse(text, size, &config, error, sizeof error) == 0)
		check_config(size);
	else
		check(strlen(error) > 0);
	free(text);

	text = copy_of(data, size, 0);
	memset(&instance, 0, sizeof instance);
	error[0] = '\0';
	if (instance_parse(text, size, &instance, error, sizeof error) == 0) {
		check_instance(size);
		merge();
	} else {
		check(strlen(error) > 0);
	}
	free(text);

	text = copy_of(data, size, 1);
	memset(&instance, 0, sizeof instance);
	memset(&command_line, 0, sizeof command_line);
	error[0] = '\0';
	if (command_line_parse(text, size, &command_line, &instance, error, sizeof error) == 0) {
		check_instance(size);
		check(command_line.config_drive == NULL || strncmp(command_line.config_drive, "/dev/", 5) == 0);
		merge();
	} else {
		check(strlen(error) > 0);
	}
	free(text);
	return 0;
}

#ifdef FUZZ_STANDALONE
/* Without libFuzzer: run the files named on the command line, and every cut and every bit flip of them. */
#include <stdio.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		static uint8_t data[1200000], changed[1200000];
		FILE *file = fopen(argv[i], "rb");
		if (file == NULL)
			return 1;
		size_t size = fread(data, 1, sizeof data, file);
		fclose(file);
		LLVMFuzzerTestOneInput(data, size);
		for (size_t at = 0; at < size && size < 4096; at++) {
			LLVMFuzzerTestOneInput(data, at);
			for (int value = 0; value < 256; value++) {
				memcpy(changed, data, size);
				changed[at] = (uint8_t)value;
				LLVMFuzzerTestOneInput(changed, size);
			}
		}
	}
	return 0;
}
#endif
