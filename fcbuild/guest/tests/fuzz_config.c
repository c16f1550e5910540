/* The boot config, which the image's builder wrote and a guest's root may have changed. */
#include "config.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config config;
	char error[64] = "";
	char *text = copy_of(data, size, 0);
	memset(&config, 0, sizeof config);
	if (config_parse(text, size, &config, error, sizeof error) == 0) {
		check(config.argc > 0 && config.argv[config.argc] == NULL);
		check(config.env[config.envc] == NULL && config.health[config.healthc] == NULL);
		check(strpbrk(config.hostname, " \t\n/") == NULL && config.workdir[0] == '/');
		check(total_length(config.argv, config.argc) + total_length(config.env, config.envc) +
			      total_length(config.health, config.healthc) + strlen(config.workdir) +
			      strlen(config.hostname) <=
		      size);
		check((config.healthc > 0) == (config.health_times.retries > 0));
		check(config.stop_signal >= 1 && config.stop_signal <= 64);
		check_network(&config.network);
	} else {
		check(strlen(error) > 0);
	}
	free(text);
	return 0;
}
