/* libFuzzer's entry into the boot config's parser: no input may make it read or write out of bounds. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config config;
	char error[64];
	/* A copy of exactly this size, so that the sanitizer sees one byte too many. */
	char *text = malloc(size > 0 ? size : 1);
	if (text == NULL)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	if (config_parse(text, size, &config, error, sizeof error) == 0) {
		size_t total = 0;
		for (size_t i = 0; i < config.argc; i++)
			total += strlen(config.argv[i]);
		for (size_t i = 0; i < config.envc; i++)
			total += strlen(config.env[i]);
		if (total + strlen(config.workdir) + strlen(config.hostname) > size)
			abort();
	} else if (strlen(error) == 0) {
		abort();
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
		static uint8_t data[300000], changed[300000];
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
