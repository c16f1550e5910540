/* What must hold of an instance's values, wherever they come from. */
#ifndef FCBUILD_FUZZ_INSTANCE_H
#define FCBUILD_FUZZ_INSTANCE_H

#include "fuzz.h"
#include "instance.h"

static inline void check_instance(const struct instance *instance, size_t size)
{
	size_t total = total_length(instance->env, instance->envc) + total_length(instance->args, instance->argc);
	for (size_t i = 0; i < instance->filec; i++) {
		const struct instance_file *file = &instance->files[i];
		check(file->path[0] == '/' && file->mode <= 07777);
		total += strlen(file->path) + file->length;
		/* Touch both ends of the content. */
		if (file->length > 0)
			check(file->data[0] + file->data[file->length - 1] < 512);
	}
	check(total <= size);
	check(instance->hostname == NULL || strpbrk(instance->hostname, " \t\n/") == NULL);
	check_network(&instance->network);
}

/* Put them over a config that is fine. */
static inline void check_merge(const struct instance *instance)
{
	static struct config config;
	char error[64], base[] = "fcbuild-boot 2\nargv 1\na\nenv 3\nA=1\nenv 11\nHOSTNAME=vm\nworkdir 1\n/\n"
				 "uid 1\n0\ngid 1\n0\nhostname 2\nvm\nstop-signal 2\n15\nstop-grace-ms 5\n10000\n"
				 "end 0\n\n";
	memset(&config, 0, sizeof config);
	check(config_parse(base, strlen(base), &config, error, sizeof error) == 0);
	if (instance_merge(&config, instance, error, sizeof error) != 0)
		return;
	check(config.argc == 1 + instance->argc && config.argv[config.argc] == NULL);
	check(config.envc >= 2 && config.envc <= 2 + instance->envc && config.env[config.envc] == NULL);
	check_network(&config.network);
}

#endif
